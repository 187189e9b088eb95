from __future__ import annotations

import io
import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from arro3.io import read_parquet, write_parquet
from step_contract import paths
from step_contract.commit import Content, commit, open_artifact
from step_contract.schemas import PRICES_FILE, PRICES_VERSION
from step_contract.store import Store

from .conftest import SMALL, Run, StepResult, parquet, put, real_closes, weekdays

TRAIN = ("train", "--session", "2026-01-15")


@pytest.fixture
def real(store: Store) -> Store:
    """A store with the real sessions of 2025 up to 15 January 2026."""
    for session, close in real_closes(2025, 2026).items():
        if session <= date(2026, 1, 15):
            put(store, session, close)
    return store


def files(result: StepResult) -> dict[str, bytes]:
    return open_artifact(str(result["manifest"]))[1]


def test_a_model_is_committed_with_metrics_and_forecast(real: Store, trainer: Run) -> None:
    code, shown, result = trainer(*TRAIN)
    made = files(result)
    manifest = open_artifact(str(result["manifest"]))[0]
    assert (code, set(made)) == (0, {"model.safetensors", "metrics.json", "forecast.json"})
    assert (manifest.rows, manifest.facts["last_session"]) == (252, "2026-01-15")
    assert manifest.inputs["sessions"] == "252 from 2025-01-02 to 2026-01-15"
    metrics = json.loads(made["metrics.json"])
    assert [score["horizon"] for score in metrics["overall"]] == [1, 2, 3]
    assert len(metrics["folds"]) == 2
    assert "repeating the last close" in shown
    assert "fold 2 of 2: epoch 2 of 2, loss " in shown and " s left, " in shown
    peak = manifest.facts["peak_memory_mib"]
    assert isinstance(peak, int) and 50 < peak < 1024


def test_later_sessions_change_no_byte_of_the_model(real: Store, trainer: Run, tmp_path: Path) -> None:
    before = files(trainer(*TRAIN)[2])
    for session, close in real_closes(2026, 2026).items():
        if session > date(2026, 1, 15):
            put(real, session, close)
    (tmp_path / "artifacts" / "models").rename(tmp_path / "elsewhere")
    assert files(trainer(*TRAIN)[2]) == before


def test_a_rerun_returns_the_model_and_trains_nothing(real: Store, trainer: Run) -> None:
    first = trainer(*TRAIN)[2]
    code, shown, second = trainer(*TRAIN)
    assert (code, second["manifest"]) == (0, first["manifest"])
    assert "committed before" in shown and "epochs" not in shown


def test_a_model_of_other_sessions_is_refused_and_says_how_many_there_were(real: Store, trainer: Run) -> None:
    trainer(*TRAIN)
    put(real, date(2024, 12, 30), 2399.49)
    code, shown, _ = trainer(*TRAIN)
    assert code == 65
    assert "committed 252 from 2025-01-02 to 2026-01-15, now 253 from 2024-12-30 to 2026-01-15" in shown


def test_another_configuration_or_history_is_another_model_beside_the_first(real: Store, trainer: Run, tmp_path: Path) -> None:
    first = trainer(*TRAIN)[2]
    second = trainer(*TRAIN, "--history-years", "20")[2]
    (tmp_path / "model.toml").write_text(SMALL.replace("seed = 1", "seed = 2"))
    third = trainer(*TRAIN)[2]
    assert len({result["manifest"] for result in (first, second, third)}) == 3
    assert files(first)["model.safetensors"] == files(second)["model.safetensors"] != files(third)["model.safetensors"]
    plotted = trainer("plot", "--session", "2026-01-15")[2]
    assert open_artifact(str(plotted["manifest"]))[0].inputs["forecast"] == (
        open_artifact(str(third["manifest"]))[0].file("forecast.json").sha256
    )


def test_a_closed_day_trains_on_the_sessions_before_it(real: Store, trainer: Run) -> None:
    code, _, result = trainer("train", "--session", "2026-02-01")
    manifest, made = open_artifact(str(result["manifest"]))
    assert (code, str(manifest.session)) == (0, "2026-02-01")
    assert json.loads(made["forecast.json"])["last_session"] == "2026-01-15"


def test_history_years_limits_what_is_trained_on(store: Store, trainer: Run) -> None:
    for session, close in real_closes(2024, 2025).items():
        put(store, session, close)
    _, _, result = trainer("train", "--session", "2025-12-30", "--history-years", "1")
    assert open_artifact(str(result["manifest"]))[0].inputs["sessions"].endswith("from 2024-12-30 to 2025-12-30")


@pytest.mark.parametrize("model", ["tcn", "gru"])
def test_every_model_forecasts_intervals_that_do_not_cross(model: str, real: Store, trainer: Run, tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(SMALL.replace('"tcn"', f'"{model}"'))
    forecast = json.loads(files(trainer(*TRAIN)[2])["forecast.json"])
    assert (forecast["symbol"], forecast["last_close"], forecast["model"]) == ("KS11", 4797.55, model)
    for point in forecast["forecast"]:
        low, middle, high = (point[name] for name in ("low", "middle", "high"))
        assert low["points"] < middle["points"] < high["points"]
        assert middle["points"] == pytest.approx(4797.55 * np.exp(middle["log_return"]), abs=0.01)


def test_the_weights_carry_scaler_and_configuration(real: Store, trainer: Run, tmp_path: Path) -> None:
    from safetensors import safe_open

    (tmp_path / "weights").write_bytes(files(trainer(*TRAIN)[2])["model.safetensors"])
    with safe_open(tmp_path / "weights", "pt") as weights:
        about = json.loads(weights.metadata()["trainer"])
    closes = [close for session, close in real_closes(2025, 2026).items() if session <= date(2026, 1, 15)]
    assert about["scaler"]["deviation"] == pytest.approx(np.diff(np.log(closes)).std())
    assert about["configuration"]["window"] == 16
    assert about["data"]["sessions"] == "252 from 2025-01-02 to 2026-01-15" and len(about["data"]["prices"]) == 64
    assert about["libraries"]["torch"].startswith("2.")


def test_too_little_history_is_65_and_says_how_to_collect_more(store: Store, trainer: Run) -> None:
    for session, close in weekdays([1000.0 + i for i in range(99)]).items():
        put(store, session, close)
    code, shown, _ = trainer(*TRAIN)
    assert code == 65
    assert "99 sessions of KS11" in shown and "100 are needed" in shown and "collector fetch-prices --from" in shown


def test_no_history_at_all_is_65_and_says_where_it_was_looked_for(trainer: Run, tmp_path: Path) -> None:
    code, shown, _ = trainer(*TRAIN, "--symbol", "KQ11")
    assert code == 65
    assert f"{tmp_path}/artifacts/prices/symbol=KQ11" in shown and "--to 2026-01-15" in shown


def test_an_index_that_never_moves_is_65(store: Store, trainer: Run) -> None:
    for session, close in weekdays([1000.0] * 120).items():
        put(store, session, close)
    code, shown, _ = trainer(*TRAIN)
    assert (code, "closes at 1000.0 on each of 120 sessions" in shown) == (65, True)


def test_an_index_that_does_not_move_for_longer_than_the_first_fold_is_65_and_its_sessions_are_named(
    store: Store, trainer: Run
) -> None:
    days = weekdays([1000.0] * 150 + [1000.0 + i % 9 for i in range(1, 31)])
    for session, close in days.items():
        put(store, session, close)
    code, shown, _ = trainer(*TRAIN)
    still = list(days)[149]
    assert (code, f"closes at 1000.0 on each of 150 sessions from {next(iter(days))} to {still}" in shown) == (65, True)


def test_too_few_sessions_within_the_history_years_says_that_there_may_be_more(store: Store, trainer: Run) -> None:
    for session, close in weekdays([1000.0 + i % 7 for i in range(600)]).items():
        if session.weekday() == 0:
            put(store, session, close)
    code, shown, _ = trainer(*TRAIN, "--history-years", "1")
    assert code == 65
    assert "or raise --history-years, which leaves out all before 2025-01-15" in shown


def test_folds_that_test_nearly_all_of_the_history_are_65_and_not_a_fault(real: Store, trainer: Run, tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(SMALL.replace("test_share = 0.3", "test_share = 0.99"))
    code, shown, _ = trainer(*TRAIN)
    assert (code, "are too few to train on, 2119 are needed" in shown) == (65, True)


@pytest.mark.parametrize("close", [float("nan"), float("inf"), 0.0, -1.0, None])
def test_a_close_that_is_no_price_is_65_and_its_object_is_named(close: float | None, store: Store, trainer: Run) -> None:
    for session, value in weekdays([*(1000.0 + i % 7 for i in range(119)), close]).items():
        put(store, session, value)
    code, shown, _ = trainer(*TRAIN)
    assert code == 65
    assert "session=2026-01-15/attempt=" in shown and "no price" in shown


def test_a_partition_without_a_row_is_65_and_its_object_is_named(store: Store, trainer: Run) -> None:
    for session, value in weekdays([1000.0 + i % 7 for i in range(120)]).items():
        put(store, session, value)
    empty, day = io.BytesIO(), date(2026, 1, 1)
    write_parquet(read_parquet(io.BytesIO(parquet(day, 1.0))).read_all().slice(0, 0), empty)
    directory = paths.prices("KS11", day)
    store.remove_folder(directory)
    content = Content({PRICES_FILE: empty.getvalue()}, 0, PRICES_VERSION, {})
    commit(store, directory, step="fetch-prices", session=day, inputs={}, content=content)
    code, shown, _ = trainer(*TRAIN)
    assert (code, "holds no row and must hold 2026-01-01 alone" in shown) == (65, True)


def test_a_damaged_partition_is_65_and_its_object_is_named(real: Store, trainer: Run, tmp_path: Path) -> None:
    [file] = (tmp_path / "artifacts/prices/symbol=KS11/session=2025-06-02").rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-1])
    code, shown, _ = trainer(*TRAIN)
    assert (code, f"{file} is torn" in shown) == (65, True)


def test_a_partition_of_another_session_is_65(real: Store, trainer: Run, tmp_path: Path) -> None:
    folder = tmp_path / "artifacts/prices/symbol=KS11"
    (folder / "session=2025-01-01").mkdir()
    for path in (folder / "session=2025-01-02").rglob("*"):
        target = folder / "session=2025-01-01" / path.relative_to(folder / "session=2025-01-02")
        target.mkdir() if path.is_dir() else target.write_bytes(path.read_bytes())
    code, shown, _ = trainer(*TRAIN)
    assert (code, "must hold 2025-01-01 alone" in shown) == (65, True)


def test_a_loss_that_is_no_number_is_65_and_the_step_is_named(real: Store, trainer: Run, tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(SMALL.replace("learning_rate = 0.01", "learning_rate = 1e30"))
    code, shown, _ = trainer(*TRAIN)
    assert code == 65
    assert "the loss is nan in step " in shown and " of epoch 1" in shown and "learning_rate" in shown
    assert not (tmp_path / "artifacts" / "models").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("seed = 1", "seed = 1\ndepth = 3"), "unknown depth"),
        (("seed = 1", ""), "seed is missing"),
        (("window = 16", "window = '16'"), "window is '16' and must be of type int"),
        (("window = 16", "window = 0"), "window is 0"),
        (("interval = 0.8", "interval = 80"), "interval is 80"),
        (("learning_rate = 0.01", "learning_rate = inf"), "learning_rate is inf and must be a finite number"),
        (("weight_decay = 0.01", "weight_decay = -0.1"), "weight_decay is -0.1 and must not be less than 0"),
        (("epochs = 2", "epochs = true"), "epochs is True"),
        (('model = "tcn"', 'model = "oracle"'), "must be one of gru, tcn"),
        (("seed = 1", "seed ="), "no TOML"),
    ],
)
def test_a_wrong_configuration_is_78_and_the_key_is_named(
    change: tuple[str, str], named: str, real: Store, trainer: Run, tmp_path: Path
) -> None:
    (tmp_path / "model.toml").write_text(SMALL.replace(*change))
    code, shown, _ = trainer(*TRAIN)
    assert (code, named in shown) == (78, True), shown


@pytest.mark.parametrize("value", ["0", "-1", "five", "1.5"])
def test_a_number_of_years_that_is_none_is_78(value: str, trainer: Run) -> None:
    code, shown, _ = trainer(*TRAIN, "--history-years", value)
    assert (code, "--history-years" in shown) == (78, True)
