"""Steps that are given what they read by the URI of its manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from step_contract import paths
from step_contract.commit import open_artifact
from step_contract.lineage.references import read_sources
from step_contract.lineage.sources import Source
from step_contract.manifest import Manifest, digest
from step_contract.store import Store

from .conftest import SMALL_CONFIG, Run, commit_price, on_weekdays

SESSION = date(2026, 1, 15)
TRAIN, PLOT, FORECAST = ((step, "--session", str(SESSION)) for step in ("train", "plot", "forecast"))
CLOSES = [1000.0 * float(np.exp(0.01 * np.sin(i))) for i in range(150)]
DAYS = on_weekdays(CLOSES)


@pytest.fixture
def history(store: Store) -> Store:
    """A store with the prices of 150 sessions up to 15 January 2026."""
    for session, close in DAYS.items():
        commit_price(store, session, close)
    return store


def prices_uri(store: Store, session: date = SESSION, revision: int = 1) -> str:
    return store.uri(f"{paths.revision(paths.prices('KS11', session), revision)}/manifest.json")


def get_manifest(result: Mapping[str, object]) -> Manifest:
    return open_artifact(str(result["manifest"]))[0]


def read_forecast(result: Mapping[str, object]) -> dict[str, object]:
    content: dict[str, object] = json.loads(open_artifact(str(result["manifest"]))[1]["forecast.json"])
    return content


def list_sources(store: Store, result: Mapping[str, object]) -> list[Source]:
    directory = str(result["manifest"]).removeprefix(f"{store.root}/").rpartition("/")[0]
    return read_sources(store, directory, get_manifest(result))


@pytest.mark.parametrize("step", [TRAIN, FORECAST])
def test_the_given_revision_is_used_although_there_is_a_later_one(step: tuple[str, ...], history: Store, trainer: Run) -> None:
    commit_price(history, SESSION, 1234.5, revision=2)
    code, _, pinned = trainer(*step, "--prices", prices_uri(history))
    assert (code, read_forecast(pinned)["last_close"]) == (0, DAYS[SESSION])
    assert [source.uri for source in list_sources(history, pinned)][-1] == prices_uri(history)


@pytest.mark.parametrize("step", [TRAIN, FORECAST])
@pytest.mark.parametrize("empty", [(), ("--prices", "")])
def test_without_a_uri_the_latest_revision_is_used(
    step: tuple[str, ...], empty: tuple[str, ...], history: Store, trainer: Run
) -> None:
    """An empty value, as on a closed day in the DAG, counts as not given."""
    commit_price(history, SESSION, 1234.5, revision=2)
    assert read_forecast(trainer(*step, *empty)[2])["last_close"] == 1234.5


def test_the_earlier_sessions_are_their_latest_revisions(history: Store, trainer: Run) -> None:
    first = trainer(*TRAIN, "--prices", prices_uri(history))[2]
    earlier = list(DAYS)[50]
    commit_price(history, earlier, 1010.0, revision=2)
    second = trainer(*TRAIN, "--prices", prices_uri(history))[2]
    assert paths.parse_revision(str(second["manifest"])) == 2 and first["manifest"] != second["manifest"]
    assert prices_uri(history, earlier, 2) in {source.uri for source in list_sources(history, second)}


def test_the_history_ends_with_the_given_session(history: Store, trainer: Run) -> None:
    """As in a run whose training was cleared after later sessions had been collected."""
    previous = list(DAYS)[-2]
    code, _, result = trainer(*TRAIN, "--prices", prices_uri(history, previous))
    assert (code, read_forecast(result)["last_session"]) == (0, str(previous))


def test_a_cleared_training_uses_the_runs_prices_until_they_are_fetched_again(history: Store, trainer: Run) -> None:
    """The prices were remade meanwhile: the run's XCom names the revision that it has collected."""
    first = trainer(*TRAIN, "--prices", prices_uri(history))[2]
    commit_price(history, SESSION, 1234.5, revision=2)
    code, output, cleared = trainer(*TRAIN, "--prices", prices_uri(history))
    assert (code, cleared["manifest"], "already committed" in output) == (0, first["manifest"], True)
    fetched_again = trainer(*TRAIN, "--prices", prices_uri(history, revision=2))[2]
    assert paths.parse_revision(str(fetched_again["manifest"])) == 2
    assert read_forecast(fetched_again)["last_close"] == 1234.5


def test_a_model_names_every_partition_with_the_digest_of_its_manifest(history: Store, trainer: Run) -> None:
    result = trainer(*TRAIN)[2]
    sources = list_sources(history, result)
    assert len(sources) == 150 and {source.role for source in sources} == {"prices"}
    for source in (sources[0], sources[-1]):
        assert source.sha256 == digest(Path(source.uri.removeprefix("file://")).read_bytes())


def test_a_plot_names_its_model_its_prices_and_the_forecasts_that_it_shows(history: Store, trainer: Run) -> None:
    issued = [trainer("forecast", "--session", day)[2]["manifest"] for day in ("2025-12-22", "2026-01-05")]
    model = trainer(*TRAIN)[2]
    code, _, plotted = trainer(*PLOT, "--model", str(model["manifest"]))
    roles: dict[str, list[str]] = {}
    for source in list_sources(history, plotted):
        roles.setdefault(source.role, []).append(source.uri)
    assert code == 0 and roles["model"] == [model["manifest"]] and roles["past-forecasts"] == issued
    assert roles["prices"] == [prices_uri(history, session) for session in list(DAYS)[-60:]]
    assert [file.name for file in get_manifest(plotted).files] == ["forecast.png"]


def test_an_issued_forecast_says_that_it_was_made_from_other_prices_than_given(history: Store, trainer: Run) -> None:
    first = trainer(*FORECAST, "--prices", prices_uri(history))[2]
    commit_price(history, SESSION, 1234.5, revision=2)
    code, output, again = trainer(*FORECAST, "--prices", prices_uri(history, revision=2))
    assert (code, again["manifest"]) == (0, first["manifest"])
    assert f"from other prices than {prices_uri(history, revision=2)}" in output
    assert "other prices" not in trainer(*FORECAST, "--prices", prices_uri(history))[1]


def test_prices_before_the_years_to_train_on_exit_78(history: Store, trainer: Run) -> None:
    commit_price(history, date(2020, 1, 2), 999.0)
    code, output, _ = trainer(*TRAIN, "--history-years", "1", "--prices", prices_uri(history, date(2020, 1, 2)))
    assert (code, "is of 2020-01-02, before 2025-01-15" in output) == (78, True), output


def test_prices_that_were_copied_from_another_symbol_exit_65(history: Store, trainer: Run) -> None:
    path = prices_uri(history).removeprefix(f"{history.root}/")
    manifest = Manifest.from_json(history.read(path) or b"", path)
    history.replace(path, replace(manifest, inputs={"symbol": "KQ11"}).to_json())
    code, output, _ = trainer(*TRAIN, "--prices", prices_uri(history))
    assert (code, "was made for the symbol KQ11" in output) == (65, True), output


def test_a_forecast_names_its_prices_and_the_forecasts_that_it_scores(history: Store, trainer: Run) -> None:
    earlier = trainer("forecast", "--session", "2026-01-14")[2]
    sources = list_sources(history, trainer(*FORECAST)[2])
    assert [source.uri for source in sources if source.role == "scored-forecasts"] == [earlier["manifest"]]
    assert sum(source.role == "prices" for source in sources) == 150


def test_a_model_of_another_configuration_is_plotted(history: Store, trainer: Run, tmp_path: Path) -> None:
    """Its URI is enough: nobody repeats the options of the training."""
    first = trainer(*TRAIN)[2]
    (tmp_path / "other.toml").write_text(SMALL_CONFIG.replace("horizon = 3", "horizon = 2"))
    other = trainer(*TRAIN, "--model-config", str(tmp_path / "other.toml"), "--history-years", "1")[2]
    plotted = [trainer(*PLOT, "--model", str(result["manifest"])) for result in (first, other)]
    assert [code for code, _, _ in plotted] == [0, 0]
    expected = [get_manifest(result).file("forecast.json").sha256 for result in (first, other)]
    assert [get_manifest(result).inputs["forecast"] for _, _, result in plotted] == expected


def test_without_a_uri_the_model_that_was_committed_last_is_plotted(history: Store, trainer: Run, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text(SMALL_CONFIG.replace("horizon = 3", "horizon = 2"))
    trainer(*TRAIN)
    last = trainer(*TRAIN, "--model-config", str(tmp_path / "other.toml"))[2]
    assert get_manifest(trainer(*PLOT)[2]).inputs["forecast"] == get_manifest(last).file("forecast.json").sha256
    remade = trainer(*TRAIN, "--remake", "again")[2]
    assert get_manifest(trainer(*PLOT)[2]).inputs["forecast"] == get_manifest(remade).file("forecast.json").sha256


def test_a_plot_shows_the_prices_that_its_model_was_trained_on(history: Store, trainer: Run) -> None:
    trainer(*TRAIN)
    first = trainer(*PLOT)[2]
    commit_price(history, SESSION, 1234.5, revision=2)
    commit_price(history, list(DAYS)[-10], 999.0, revision=2)
    code, output, again = trainer(*PLOT)
    assert (code, again["manifest"], "already committed" in output) == (0, first["manifest"], True)


@pytest.mark.parametrize("damaged", ["manifest.json", "prices.parquet"])
def test_a_plot_works_again_after_its_prices_were_repaired_as_it_advises(damaged: str, history: Store, trainer: Run) -> None:
    """A revision with the same bar leaves the model's inputs equal, so training again alone returns the model."""
    trainer(*TRAIN)
    day = list(DAYS)[-10]
    [path] = [name for name in history.list(paths.prices("KS11", day)) if name.endswith(damaged)]
    history.replace(path, (history.read(path) or b"")[:50])
    commit_price(history, day, DAYS[day], revision=2)
    code, output, _ = trainer(*PLOT)
    assert (code, "run trainer train --session 2026-01-15 --symbol KS11 --remake REASON" in output) == (65, True), output
    assert trainer(*TRAIN, "--remake", "repaired prices")[0] == 0
    assert trainer(*PLOT)[0] == 0


def test_a_model_of_before_sources_were_recorded_is_plotted(history: Store, trainer: Run) -> None:
    model = str(trainer(*TRAIN)[2]["manifest"])
    before = trainer(*PLOT)[2]
    path = model.removeprefix(f"{history.root}/")
    manifest = Manifest.from_json(history.read(path) or b"", path)
    files = tuple(file for file in manifest.files if file.name != "prices.sha256")
    history.replace(path, replace(manifest, sources=(), files=files).to_json())
    code, output, after = trainer(*PLOT, "--model", model)
    assert (code, after["manifest"], "already committed" in output) == (0, before["manifest"], True)


MODEL = "models/symbol=KS11/session=2026-01-15/config=a1b2c3d4e5f6"


@pytest.mark.parametrize(
    ("step", "option", "uri", "message"),
    [
        (TRAIN, "--prices", "file:///elsewhere/prices/symbol=KS11/session=2026-01-15/manifest.json", "is not in --artifacts"),
        (TRAIN, "--prices", "s3://market/prices/symbol=KS11/session=2026-01-15/manifest.json", "is not in --artifacts"),
        (TRAIN, "--prices", "{root}/prices/symbol=KQ11/session=2026-01-15/manifest.json", "is of the symbol KQ11, not of KS11"),
        (TRAIN, "--prices", "{root}/prices/symbol=KS11/session=2026-01-16/manifest.json", "is of 2026-01-16, after --session"),
        (TRAIN, "--prices", f"{{root}}/{MODEL}/manifest.json", "an artifact of models, not of prices; use one of fetch-prices"),
        (TRAIN, "--prices", "{root}/prices/symbol=KS11/session=2026-01-15", "is not the canonical URI of a manifest"),
        (TRAIN, "--prices", "{root}/prices/symbol=KS11//session=2026-01-15/manifest.json", "is not the canonical URI"),
        (TRAIN, "--prices", "{root}/x/../prices/symbol=KS11/session=2026-01-15/manifest.json", "is not the canonical URI"),
        (
            TRAIN,
            "--prices",
            "{root}/prices/symbol=KS11/session=2026-01-15/revision=1/manifest.json",
            "is not the canonical URI",
        ),
        (TRAIN, "--prices", "None", "is not in --artifacts"),
        (FORECAST, "--prices", "{root}/prices/symbol=KS11/session=2026-01-14/manifest.json", "is of another session"),
        (
            PLOT,
            "--model",
            "{root}/prices/symbol=KS11/session=2026-01-15/manifest.json",
            "of prices, not of models; use one of train",
        ),
        (PLOT, "--model", "{root}/models/symbol=KS11/session=2026-01-15/manifest.json/", "is not the canonical URI"),
    ],
)
def test_a_uri_of_something_else_exits_78(
    step: tuple[str, ...], option: str, uri: str, message: str, history: Store, trainer: Run
) -> None:
    code, output, _ = trainer(*step, option, uri.format(root=history.root))
    assert (code, message in output) == (78, True), output
    assert not history.list("models")


def test_a_model_of_another_session_exits_78(history: Store, trainer: Run) -> None:
    model = str(trainer("train", "--session", "2026-01-14")[2]["manifest"])
    code, output, _ = trainer(*PLOT, "--model", model)
    assert (code, "is of another session: use one of --session 2026-01-15" in output) == (78, True)


@pytest.mark.parametrize(("step", "option"), [(TRAIN, "--prices"), (PLOT, "--model")])
def test_a_time_and_a_uri_exclude_each_other(step: tuple[str, ...], option: str, history: Store, trainer: Run) -> None:
    code, output, _ = trainer(*step, option, prices_uri(history), "--as-of", "2026-01-16T00:00:00Z")
    assert (code, f"--as-of and {option} exclude each other" in output) == (78, True)


@pytest.mark.parametrize("damage", ["missing", "truncated", "of another step"])
def test_prices_that_are_missing_or_damaged_exit_65(damage: str, history: Store, trainer: Run) -> None:
    path = prices_uri(history).removeprefix(f"{history.root}/")
    data = history.read(path) or b""
    if damage == "missing":
        history.remove_folder(path)
    elif damage == "truncated":
        history.replace(path, data[:50])
    else:
        history.replace(path, replace(Manifest.from_json(data, path), step="decide").to_json())
    code, output, _ = trainer(*TRAIN, "--prices", prices_uri(history))
    assert (code, prices_uri(history) in output) == (65, True)


def test_a_model_that_is_missing_exits_65(history: Store, trainer: Run) -> None:
    code, output, _ = trainer(*PLOT, "--model", history.uri(f"{MODEL}/manifest.json"))
    assert (code, "is missing: restore it, or give --model another one or none" in output) == (65, True)


@pytest.mark.parametrize("option", ["--history-years", "--model-config"])
def test_a_plot_has_no_options_of_the_training(option: str, history: Store, trainer: Run) -> None:
    assert trainer(*PLOT, option, "5")[0] == 78
