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
from step_contract.schemas import PRICES
from step_contract.store import Store
from trainer.calibration import Calibration, calibrate_forecasts
from trainer.dataset import log_returns

from .conftest import SMALL_CONFIG, Run, StepResult, commit_price, make_parquet, on_weekdays, real_closes

TRAIN = ("train", "--session", "2026-01-15")


@pytest.fixture
def real_prices(store: Store) -> Store:
    """A store with the sessions of 2025 up to 15 January 2026."""
    for session, close in real_closes(2025, 2026).items():
        if session <= date(2026, 1, 15):
            commit_price(store, session, close)
    return store


def read_files(result: StepResult) -> dict[str, bytes]:
    return open_artifact(str(result["manifest"]))[1]


def test_model_is_committed_with_metrics_and_forecast(real_prices: Store, trainer: Run) -> None:
    code, output, result = trainer(*TRAIN)
    files = read_files(result)
    manifest = open_artifact(str(result["manifest"]))[0]
    assert code == 0
    assert set(files) == {"model.safetensors", "metrics.json", "forecast.json", "calibration.json", "prices.sha256"}
    assert (manifest.rows, manifest.facts["last_session"]) == (252, "2026-01-15")
    assert manifest.inputs["sessions"] == "252 from 2025-01-02 to 2026-01-15"
    metrics = json.loads(files["metrics.json"])
    assert [score["horizon"] for score in metrics["overall"]] == [1, 2, 3]
    assert len(metrics["folds"]) == 2
    assert "naive forecast (last close)" in output
    assert "before calibration" in output and "Coverage by thirds of volatility" in output and "MASE" in output
    assert "fold 2 of 2: epoch 2 of 2, loss=" in output and "remaining_seconds=" in output
    peak = manifest.facts["peak_memory_mib"]
    assert isinstance(peak, int) and 50 < peak < 1024


def test_metrics_compare_the_calibrated_interval_with_others(real_prices: Store, trainer: Run) -> None:
    metrics = json.loads(read_files(trainer(*TRAIN)[2])["metrics.json"])
    assert metrics["uncalibrated_forecasts"] == 0
    for score in [*metrics["overall"], *metrics["folds"][0]]:
        assert set(score["intervals"]) == {"calibrated", "raw", "naive", "drift"}
        assert score["coverage"] == score["intervals"]["calibrated"]["coverage"]
        for interval in score["intervals"].values():
            assert interval["coverage_low"] <= interval["coverage"] <= interval["coverage_high"]
            assert len(interval["coverage_by_volatility"]) == 3
            assert interval["interval_score"] >= interval["width"] > 0


def test_forecast_is_calibrated_by_the_state_in_the_artifact(real_prices: Store, trainer: Run) -> None:
    files = read_files(trainer(*TRAIN)[2])
    points = json.loads(files["forecast.json"])["forecast"]
    closes = [close for session, close in real_closes(2025, 2026).items() if session <= date(2026, 1, 15)]
    raw = np.array([[point[name]["log_return"] for name in ("low_raw", "middle", "high_raw")] for point in points])
    calibration = Calibration.from_json(json.loads(files["calibration.json"]))
    returns = log_returns(np.array(closes))
    calibrated = calibrate_forecasts(calibration, returns, np.array([len(returns)]), raw[None]).forecasts[0]
    expected = [[point[name]["log_return"] for name in ("low", "middle", "high")] for point in points]
    assert calibrated == pytest.approx(np.array(expected), abs=1e-7)
    assert not np.allclose(calibrated, raw)


def test_intervals_that_cannot_be_calibrated_are_reported(real_prices: Store, trainer: Run, tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(SMALL_CONFIG.replace("interval = 0.8", "interval = 0.998"))
    code, output, result = trainer(*TRAIN)
    files = read_files(result)
    count = json.loads(files["metrics.json"])["overall"][-1]["forecasts"]
    assert code == 0
    assert f"{count} of them not calibrated: too few outcomes" in " ".join(output.split())
    for point in json.loads(files["forecast.json"])["forecast"]:
        assert (point["low"], point["high"]) == (point["low_raw"], point["high_raw"])


def test_later_sessions_do_not_change_the_model(real_prices: Store, trainer: Run, tmp_path: Path) -> None:
    before = read_files(trainer(*TRAIN)[2])
    for session, close in real_closes(2026, 2026).items():
        if session > date(2026, 1, 15):
            commit_price(real_prices, session, close)
    (tmp_path / "artifacts" / "models").rename(tmp_path / "elsewhere")
    assert read_files(trainer(*TRAIN)[2]) == before


def test_rerun_returns_the_committed_model_without_training(real_prices: Store, trainer: Run) -> None:
    first = trainer(*TRAIN)[2]
    code, output, second = trainer(*TRAIN)
    assert (code, second["manifest"]) == (0, first["manifest"])
    assert "already committed" in output and "epoch" not in output


def test_other_configuration_or_history_gives_another_model(real_prices: Store, trainer: Run, tmp_path: Path) -> None:
    first = trainer(*TRAIN)[2]
    second = trainer(*TRAIN, "--history-years", "20")[2]
    (tmp_path / "model.toml").write_text(SMALL_CONFIG.replace("seed = 1", "seed = 2"))
    third = trainer(*TRAIN)[2]
    assert len({result["manifest"] for result in (first, second, third)}) == 3
    weights = [read_files(result)["model.safetensors"] for result in (first, second, third)]
    assert weights[0] == weights[1] != weights[2]
    plotted = trainer("plot", "--session", "2026-01-15")[2]
    assert open_artifact(str(plotted["manifest"]))[0].inputs["forecast"] == (
        open_artifact(str(third["manifest"]))[0].file("forecast.json").sha256
    )


def test_closed_day_trains_on_earlier_sessions(real_prices: Store, trainer: Run) -> None:
    code, _, result = trainer("train", "--session", "2026-02-01")
    manifest, files = open_artifact(str(result["manifest"]))
    assert (code, str(manifest.session)) == (0, "2026-02-01")
    assert json.loads(files["forecast.json"])["last_session"] == "2026-01-15"


def test_history_years_limits_the_sessions(store: Store, trainer: Run) -> None:
    for session, close in real_closes(2024, 2025).items():
        commit_price(store, session, close)
    _, _, result = trainer("train", "--session", "2025-12-30", "--history-years", "1")
    assert open_artifact(str(result["manifest"]))[0].inputs["sessions"].endswith("from 2024-12-30 to 2025-12-30")


@pytest.mark.parametrize("model", ["tcn", "gru"])
def test_forecast_quantiles_do_not_cross(model: str, real_prices: Store, trainer: Run, tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(SMALL_CONFIG.replace('"tcn"', f'"{model}"'))
    forecast = json.loads(read_files(trainer(*TRAIN)[2])["forecast.json"])
    assert (forecast["symbol"], forecast["last_close"], forecast["model"]) == ("KS11", 4797.55, model)
    for point in forecast["forecast"]:
        low, middle, high = (point[name] for name in ("low", "middle", "high"))
        assert low["points"] < middle["points"] < high["points"]
        assert middle["points"] == pytest.approx(4797.55 * np.exp(middle["log_return"]), abs=0.01)


def test_weights_contain_scaler_configuration_and_inputs(real_prices: Store, trainer: Run, tmp_path: Path) -> None:
    from safetensors import safe_open

    (tmp_path / "weights").write_bytes(read_files(trainer(*TRAIN)[2])["model.safetensors"])
    with safe_open(tmp_path / "weights", "pt") as file:
        metadata = json.loads(file.metadata()["trainer"])
    closes = [close for session, close in real_closes(2025, 2026).items() if session <= date(2026, 1, 15)]
    assert metadata["scaler"]["std"] == pytest.approx(np.diff(np.log(closes)).std())
    assert metadata["config"]["window"] == 16
    assert metadata["data"]["sessions"] == "252 from 2025-01-02 to 2026-01-15" and len(metadata["data"]["prices"]) == 64
    assert metadata["libraries"]["torch"].startswith("2.")


def test_short_history_exits_65_with_the_command_to_collect_more(store: Store, trainer: Run) -> None:
    for session, close in on_weekdays([1000.0 + i for i in range(99)]).items():
        commit_price(store, session, close)
    code, output, _ = trainer(*TRAIN)
    assert code == 65
    assert "too few sessions of KS11 to train on: 99 from" in output and "100 required" in output
    assert "collector fetch-prices --from" in output


def test_missing_history_exits_65_naming_the_directory(trainer: Run, tmp_path: Path) -> None:
    code, output, _ = trainer(*TRAIN, "--symbol", "KQ11")
    assert code == 65
    assert f"{tmp_path}/artifacts/prices/symbol=KQ11" in output and "--to 2026-01-15" in output


def test_constant_closes_exit_65(store: Store, trainer: Run) -> None:
    for session, close in on_weekdays([1000.0] * 120).items():
        commit_price(store, session, close)
    code, output, _ = trainer(*TRAIN)
    assert (code, "has the same close 1000.0 in each of 120 sessions" in output) == (65, True)


def test_constant_closes_in_the_first_fold_exit_65_naming_the_sessions(store: Store, trainer: Run) -> None:
    days = on_weekdays([1000.0] * 150 + [1000.0 + i % 9 for i in range(1, 31)])
    for session, close in days.items():
        commit_price(store, session, close)
    code, output, _ = trainer(*TRAIN)
    first, last = next(iter(days)), list(days)[149]
    assert (code, f"has the same close 1000.0 in each of 150 sessions from {first} to {last}" in output) == (65, True)


def test_short_history_years_exit_65_with_advice(store: Store, trainer: Run) -> None:
    for session, close in on_weekdays([1000.0 + i % 7 for i in range(600)]).items():
        if session.weekday() == 0:
            commit_price(store, session, close)
    code, output, _ = trainer(*TRAIN, "--history-years", "1")
    assert code == 65
    assert "or raise --history-years, which excludes sessions before 2025-01-15" in output


def test_large_test_share_exits_65(real_prices: Store, trainer: Run, tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(SMALL_CONFIG.replace("test_share = 0.3", "test_share = 0.99"))
    code, output, _ = trainer(*TRAIN)
    assert (code, "too few sessions of KS11 to train on" in output and "2119 required" in output) == (65, True)


@pytest.mark.parametrize("close", [float("nan"), float("inf"), 0.0, -1.0, None])
def test_invalid_close_exits_65_naming_its_object(close: float | None, store: Store, trainer: Run) -> None:
    for session, value in on_weekdays([*(1000.0 + i % 7 for i in range(119)), close]).items():
        commit_price(store, session, value)
    code, output, _ = trainer(*TRAIN)
    assert code == 65
    assert "session=2026-01-15/attempt=" in output and "invalid close" in output


def test_empty_partition_exits_65_naming_its_object(store: Store, trainer: Run) -> None:
    for session, value in on_weekdays([1000.0 + i % 7 for i in range(120)]).items():
        commit_price(store, session, value)
    empty, day = io.BytesIO(), date(2026, 1, 1)
    write_parquet(read_parquet(io.BytesIO(make_parquet(day, 1.0))).read_all().slice(0, 0), empty)
    directory = paths.prices("KS11", day)
    store.remove_folder(directory)
    content = Content({PRICES.file: empty.getvalue()}, 0, PRICES.version, {})
    commit(store, directory, step="fetch-prices", session=day, inputs={}, content=content)
    code, output, _ = trainer(*TRAIN)
    assert (code, "expected one row, for 2026-01-01; found none" in output) == (65, True)


def test_damaged_partition_exits_65_naming_its_object(real_prices: Store, trainer: Run, tmp_path: Path) -> None:
    [file] = (tmp_path / "artifacts/prices/symbol=KS11/session=2025-06-02").rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-1])
    code, output, _ = trainer(*TRAIN)
    assert (code, f"{file} is truncated" in output) == (65, True)


def test_partition_of_another_session_exits_65(real_prices: Store, trainer: Run, tmp_path: Path) -> None:
    folder = tmp_path / "artifacts/prices/symbol=KS11"
    (folder / "session=2025-01-01").mkdir()
    for path in (folder / "session=2025-01-02").rglob("*"):
        target = folder / "session=2025-01-01" / path.relative_to(folder / "session=2025-01-02")
        target.mkdir() if path.is_dir() else target.write_bytes(path.read_bytes())
    code, output, _ = trainer(*TRAIN)
    assert (code, "expected one row, for 2025-01-01; found 1 starting at 2025-01-02" in output) == (65, True)


def test_nan_loss_exits_65_naming_the_step(real_prices: Store, trainer: Run, tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(SMALL_CONFIG.replace("learning_rate = 0.01", "learning_rate = 1e30"))
    code, output, _ = trainer(*TRAIN)
    assert code == 65
    assert "training diverged with loss nan in step " in output and " of epoch 1" in output and "learning_rate" in output
    assert not (tmp_path / "artifacts" / "models").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seed = 1", "seed = 1\ndepth = 3"), "unknown key depth"),
        (("seed = 1", ""), "missing key seed"),
        (("window = 16", "window = '16'"), "invalid window '16': must be of type int"),
        (("window = 16", "window = 0"), "invalid window 0: must be greater than 0"),
        (("interval = 0.8", "interval = 80"), "invalid interval 80: must be less than 1"),
        (("interval = 0.8", "interval = 0.999"), "invalid interval 0.999: must be at most 0.998"),
        (("learning_rate = 0.01", "learning_rate = inf"), "invalid learning_rate inf: must be a finite number"),
        (("weight_decay = 0.01", "weight_decay = -0.1"), "invalid weight_decay -0.1: must not be negative"),
        (("epochs = 2", "epochs = true"), "invalid epochs True: must be of type int"),
        (('model = "tcn"', 'model = "oracle"'), "must be one of gru, tcn"),
        (("seed = 1", "seed ="), "not valid TOML"),
    ],
)
def test_invalid_configuration_exits_78_naming_the_key(
    change: tuple[str, str], message: str, real_prices: Store, trainer: Run, tmp_path: Path
) -> None:
    (tmp_path / "model.toml").write_text(SMALL_CONFIG.replace(*change))
    code, output, _ = trainer(*TRAIN)
    assert (code, message in output) == (78, True), output


@pytest.mark.parametrize("value", ["0", "-1", "five", "1.5"])
def test_invalid_history_years_exit_78(value: str, trainer: Run) -> None:
    code, output, _ = trainer(*TRAIN, "--history-years", value)
    assert (code, "--history-years" in output) == (78, True)
