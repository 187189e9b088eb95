"""The step `forecast`: who forecasts, from what was known, and that a forecast is issued once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from step_contract import paths
from step_contract.commit import Content, commit, open_artifact
from step_contract.manifest import Manifest, canonical
from step_contract.schemas import MARKET_TIME_ZONE
from step_contract.store import Store
from trainer.config import read_model_config
from trainer.daily_forecast.current_model import forecast_with_model, read_model
from trainer.daily_forecast.step import issue_forecast
from trainer.dataset import log_returns
from trainer.model_registry import PROMOTED, ROLLED_BACK, RegistryEntry, entry_as_of, read_entries

from .conftest import Run, commit_price, on_weekdays

LAST = date(2026, 1, 15)  # a Thursday
MODEL_SESSION = date(2026, 1, 6)


def make_closes(count: int = 160) -> dict[date, float]:
    """Return the closes of a random walk on the weekdays up to LAST."""
    return on_weekdays((1000 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.01, count)))).tolist(), LAST)


def commit_closes(store: Store, closes: dict[date, float]) -> None:
    previous = None
    for session, close in closes.items():
        commit_price(store, session, close, change=None if previous is None else close / previous - 1)
        previous = close


@pytest.fixture
def closes(store: Store) -> dict[date, float]:
    closes = make_closes()
    commit_closes(store, closes)
    return closes


def forecast(trainer: Run, session: date = LAST) -> tuple[Manifest, dict[str, Any], str]:
    """Run the step; return the manifest, the content of forecast.json and the output."""
    code, output, result = trainer("forecast", "--session", str(session))
    assert code == 0, output
    manifest, files = open_artifact(str(result["manifest"]))
    return manifest, json.loads(files["forecast.json"]), output


def add_entry(store: Store, action: str, path: str, session: date, day: date) -> None:
    """Add a promotion or a rollback that was made in the evening of `day`."""
    number = len(read_entries(store, "KS11")) + 1
    time = datetime(day.year, day.month, day.day, 20, tzinfo=MARKET_TIME_ZONE).isoformat()
    entry = RegistryEntry(number, action, path, session.isoformat(), "a reason", time)
    assert store.create(f"{paths.promotions('KS11')}/{number:06}.json", canonical(asdict(entry)))


def train(trainer: Run, store: Store, session: date = MODEL_SESSION, *, promoted: bool = True) -> str:
    """Train a model; return the path of its manifest."""
    code, output, result = trainer("train", "--session", str(session))
    assert code == 0, output
    path = str(result["manifest"]).removeprefix(f"{store.root}/")
    if promoted:
        add_entry(store, PROMOTED, path, session, session)
    return path


def test_without_a_model_a_baseline_forecasts_and_is_named(closes: dict[date, float], trainer: Run) -> None:
    manifest, content, output = forecast(trainer)
    assert content["source"] == {"name": "baseline: naive"} and content["model"] == "naive" and content["is_calibrated"]
    assert (content["last_session"], content["last_close"]) == (str(LAST), closes[LAST])
    assert [point["horizon"] for point in content["forecast"]] == [1, 2, 3]
    widths = [point["high"]["log_return"] - point["low"]["log_return"] for point in content["forecast"]]
    assert widths == sorted(widths) and widths[0] == pytest.approx(2 * 1.28 * 0.01, rel=0.4)
    assert "(baseline: naive)" in output and manifest.facts["source"] == "baseline: naive"


def test_a_steady_trend_is_forecast_by_the_drift(store: Store, trainer: Run) -> None:
    generator = np.random.default_rng(0)
    closes = on_weekdays((1000 * np.exp(np.cumsum(generator.normal(0.01, 0.005, 150)))).tolist(), LAST)
    commit_closes(store, closes)
    _, content, _ = forecast(trainer)
    assert content["source"] == {"name": "baseline: drift"}
    assert content["forecast"][0]["middle"]["log_return"] == pytest.approx(0.01, abs=0.002)


@pytest.mark.slow
def test_a_baseline_does_not_import_torch(closes: dict[date, float], store: Store, tmp_path: Path) -> None:
    arguments = ["forecast", "--session", str(LAST), "--artifacts", store.root]
    lines = ["import sys", f"sys.argv[1:] = {arguments!r}", "from trainer.cli import main", "assert main() == 0"]
    code = "\n".join([*lines, "assert 'torch' not in sys.modules"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_current_model_forecasts_and_is_named(closes: dict[date, float], store: Store, trainer: Run) -> None:
    path = train(trainer, store)
    manifest, content, output = forecast(trainer)
    source = content["source"]
    assert (source["model"], source["uri"]) == (path, store.uri(path)) and len(source["digest"]) == 64
    assert content["model"] == "tcn" and f"(model of {MODEL_SESSION})" in output
    assert manifest.facts["source"] == f"model of {MODEL_SESSION}" and "problem" not in manifest.facts
    assert content["forecast"][0]["low_raw"] != content["forecast"][0]["low"], "the interval is calibrated"


def test_the_model_forecasts_from_its_own_last_session_what_it_did_in_its_training(
    closes: dict[date, float], store: Store, trainer: Run
) -> None:
    path = train(trainer, store)
    own = json.loads(open_artifact(store.uri(path))[1]["forecast.json"])["forecast"]
    model = read_model(store, path)
    known = np.array([close for session, close in closes.items() if session <= MODEL_SESSION])
    values = forecast_with_model(model, log_returns(known), len(known) - 1, path).values
    assert values.round(8).tolist() == [[point[name]["log_return"] for name in ("low", "middle", "high")] for point in own]


def test_missed_outcomes_since_the_training_widen_the_interval(store: Store, trainer: Run) -> None:
    calm, wild = make_closes(), make_closes()
    later = [session for session in wild if session > MODEL_SESSION]
    for number, session in enumerate(later[:-1]):
        wild[session] *= 1.2 if number % 2 else 0.8
    widths = []
    for name, closes in (("calm", calm), ("wild", wild)):
        there = Store(f"{store.root}/{name}")
        commit_closes(there, closes)
        code, output, result = trainer("train", "--session", str(MODEL_SESSION), "--artifacts", there.root)
        assert code == 0, output
        path = str(result["manifest"]).removeprefix(f"{there.root}/")
        add_entry(there, PROMOTED, path, MODEL_SESSION, MODEL_SESSION)
        _, _, result = trainer("forecast", "--session", str(LAST), "--artifacts", there.root)
        point = json.loads(open_artifact(str(result["manifest"]))[1]["forecast.json"])["forecast"][0]
        widths.append(point["high"]["log_return"] - point["low"]["log_return"])
    assert widths[1] > 2 * widths[0]


def test_a_model_trained_on_the_session_is_used_from_the_next_one_on(
    closes: dict[date, float], store: Store, trainer: Run
) -> None:
    """So the forecast does not depend on whether the training has already finished."""
    train(trainer, store, date(2026, 1, 14))
    assert forecast(trainer, date(2026, 1, 14))[1]["source"]["name"] == "baseline: naive"
    assert forecast(trainer)[1]["source"]["name"] == "model of 2026-01-14"


@pytest.mark.parametrize("has_model", [False, True], ids=["baseline", "model"])
def test_later_closes_models_and_rollbacks_do_not_change_a_forecast(
    has_model: bool, closes: dict[date, float], store: Store, trainer: Run, tmp_path: Path
) -> None:
    session = date(2026, 1, 8)
    path = train(trainer, store, promoted=has_model)
    whole = forecast(trainer, session)
    (tmp_path / "artifacts" / "forecasts").rename(tmp_path / "known")
    # What happens after the session, and what was known of it then, in another order.
    train(trainer, store, date(2026, 1, 13))
    if has_model:
        add_entry(store, ROLLED_BACK, path, MODEL_SESSION, date(2026, 1, 9))
    for later in (date(2026, 1, 15), date(2026, 1, 14)):
        forecast(trainer, later)
    assert forecast(trainer, session)[1] == whole[1]
    store.remove_folder("forecasts")
    for later in [day for day in closes if day > session]:
        store.remove_folder(paths.prices("KS11", later))
    assert forecast(trainer, session)[1] == whole[1]


def make_entries(*entries: tuple[str, str, str, str]) -> list[RegistryEntry]:
    """Return entries of (action, model, the model's session, the day in Seoul on which the entry was made)."""
    return [
        RegistryEntry(number, action, model, session, "", f"{day}T23:30:00+09:00")
        for number, (action, model, session, day) in enumerate(entries, start=1)
    ]


@pytest.mark.parametrize(
    ("session", "model"),
    [
        ("2026-01-01", None),
        ("2026-01-02", "a"),
        ("2026-01-15", "a"),
        ("2026-01-16", "b"),
        ("2026-01-19", "b"),
        ("2026-01-20", "a"),
    ],
)
def test_the_registry_is_read_as_of_the_session(session: str, model: str | None) -> None:
    entries = make_entries(
        (PROMOTED, "a", "2026-01-01", "2026-01-01"),
        (PROMOTED, "b", "2026-01-15", "2026-01-15"),
        (ROLLED_BACK, "b", "2026-01-15", "2026-01-20"),
    )
    entry = entry_as_of(entries, date.fromisoformat(session))
    assert (entry and entry.model) == model


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(1, 28)), max_size=8), st.data())
def test_later_entries_of_the_registry_never_change_a_forecast(known: list[tuple[bool, int, int]], data: st.DataObject) -> None:
    """Known on 15 March: models of sessions in February, promoted or rolled back until then."""
    entries = [
        (PROMOTED if is_promotion else ROLLED_BACK, f"model {model}", f"2026-02-{model + 1:02}", f"2026-02-{day:02}")
        for is_promotion, model, day in known
    ]
    promoted = sorted({model for action, model, _, _ in entries if action == PROMOTED})
    sessions = {model: session for _, model, session, _ in entries}
    rollbacks = st.sampled_from(promoted).map(lambda model: (ROLLED_BACK, model, "2026-02-01", "2026-03-16"))
    later_models = st.integers(15, 28).map(lambda day: (PROMOTED, f"later {day}", f"2026-03-{day}", f"2026-03-{day}"))
    revisions = st.sampled_from(promoted).map(lambda model: (PROMOTED, f"{model}, revision 2", sessions[model], "2026-03-20"))
    later = data.draw(st.lists(later_models | rollbacks | revisions if promoted else later_models, max_size=8))
    assert entry_as_of(make_entries(*entries, *later), date(2026, 3, 15)) == entry_as_of(
        make_entries(*entries), date(2026, 3, 15)
    )


def test_a_backfilled_session_uses_no_later_model_and_none_that_was_rolled_back() -> None:
    entries = make_entries(
        (PROMOTED, "2018", "2018-12-15", "2026-03-01"),
        (PROMOTED, "2019", "2019-01-01", "2026-03-01"),
        (ROLLED_BACK, "2019", "2019-01-01", "2026-03-02"),
        (PROMOTED, "2026", "2026-03-01", "2026-03-01"),
    )
    entry = entry_as_of(entries, date(2019, 1, 15))
    assert entry and entry.model == "2018", (
        "2019 was trained and rolled back in a backfill: no rollback is newer than its model"
    )


@pytest.mark.parametrize(("session", "model"), [("2026-01-20", "a"), ("2026-01-31", "a"), ("2026-03-02", "a, revision 2")])
def test_a_forecast_that_is_run_late_uses_no_model_that_was_retrained_since(session: str, model: str) -> None:
    """The revision was trained on closes that were corrected in March."""
    entries = make_entries(
        (PROMOTED, "before", "2026-01-01", "2026-01-01"),
        (PROMOTED, "a", "2026-01-15", "2026-01-15"),
        (ROLLED_BACK, "a", "2026-01-15", "2026-03-01"),
        (PROMOTED, "a, revision 2", "2026-01-15", "2026-03-02"),
    )
    entry = entry_as_of(entries, date.fromisoformat(session))
    assert entry and entry.model == model


def test_a_backfill_uses_the_latest_of_the_models_that_it_has_retrained() -> None:
    entries = make_entries((PROMOTED, "a", "2019-01-01", "2026-03-01"), (PROMOTED, "a, revision 2", "2019-01-01", "2026-03-02"))
    entry = entry_as_of(entries, date(2019, 1, 15))
    assert entry and entry.model == "a, revision 2"


def test_a_forecast_is_issued_once_whatever_changes_later(closes: dict[date, float], store: Store, trainer: Run) -> None:
    issued = forecast(trainer)
    commit_price(store, LAST, closes[LAST] + 5, revision=2)
    train(trainer, store)
    again = forecast(trainer)
    assert again[:2] == issued[:2] and "(already committed)" in again[2] and "(already committed)" not in issued[2]
    assert [name for name in store.list("forecasts") if name.endswith("manifest.json")] == [
        f"{paths.forecast('KS11', LAST)}/manifest.json"
    ]


def test_a_remade_forecast_stands_beside_the_one_that_was_issued(closes: dict[date, float], store: Store, trainer: Run) -> None:
    before = list(closes)[-2]
    issued, content, _ = forecast(trainer, before)
    train(trainer, store)
    code, output, result = trainer("forecast", "--session", str(before), "--remake", "the code was wrong")
    assert (code, paths.parse_revision(str(result["manifest"]))) == (0, 2)
    assert "Remade forecast, revision 2, not the one that was issued, from" in output
    assert (
        "(revision 2: the code was wrong)" in output
        and result["facts"]["revision"] == 2
        and f"model of {MODEL_SESSION}" in output
    )
    again = trainer("forecast", "--session", str(before), "--remake", "the code was wrong")[2]
    assert again["manifest"] == result["manifest"], "a retry makes no other"
    assert forecast(trainer, before)[:2] == (issued, content), "without a reason, what was issued is returned"
    manifest = forecast(trainer)[0]
    assert manifest.facts["previous_middle"] == content["forecast"][0]["middle"]["points"], "what was issued is scored"


@pytest.mark.parametrize("name", ["forecast.json", "manifest.json"])
def test_an_issued_forecast_that_is_damaged_exits_65_and_is_not_replaced(
    name: str, closes: dict[date, float], trainer: Run, tmp_path: Path
) -> None:
    forecast(trainer)
    [file] = (tmp_path / "artifacts" / "forecasts").rglob(name)
    file.write_bytes(b"{")
    assert trainer("forecast", "--session", str(LAST), "--remake", "damaged")[0] == 0
    code, output, _ = trainer("forecast", "--session", str(LAST))
    assert (code, str(file) in output, "without --remake, only restoring it helps" in output) == (65, True, True)


def test_the_first_forecast_of_a_session_is_issued_also_by_a_remake(closes: dict[date, float], trainer: Run) -> None:
    code, output, result = trainer("forecast", "--session", str(LAST), "--remake", "all anew")
    assert code == 0 and "Forecast from" in output and "revision" not in result["facts"]
    assert forecast(trainer)[0].reason == "all anew"


def test_two_steps_at_once_issue_one_forecast(closes: dict[date, float], store: Store, tmp_path: Path, trainer: Run) -> None:
    config = read_model_config(tmp_path / "model.toml")
    with ThreadPoolExecutor(2) as pool:
        issued = list(pool.map(lambda _: issue_forecast(store, "KS11", LAST, config), range(2)))
    assert issued[0].manifest == issued[1].manifest
    assert len([name for name in store.list("forecasts") if name.endswith("forecast.json")]) == 1


def truncate_weights(model: Path) -> str:
    [file] = model.rglob("model.safetensors")
    file.write_bytes(file.read_bytes()[:-8])
    return "truncated"


def set_schema_version(model: Path) -> str:
    [path] = model.rglob("manifest.json")
    path.write_bytes(replace(Manifest.from_json(path.read_bytes(), ""), schema_version=99).to_json())
    return "has schema version 99, this program reads 3: upgrade the program"


def remove_manifest(model: Path) -> str:
    [path] = model.rglob("manifest.json")
    path.unlink()
    return "is missing"


def change_network(model: Path) -> str:
    """As if the code of the network had changed since: the model is intact."""
    [path] = model.rglob("manifest.json")
    manifest = Manifest.from_json(path.read_bytes(), "")
    contents = {file.name: (path.parent / file.path).read_bytes() for file in manifest.files}
    contents["model.safetensors"] = contents["model.safetensors"].replace(b"head.linear.bias", b"tail.linear.bias")
    store = Store(str(model.parents[2]))
    directory = str(path.parent.relative_to(model.parents[2]))
    store.remove_folder(directory)
    content = Content(contents, manifest.rows, manifest.schema_version, manifest.facts)
    commit(store, directory, step="train", session=manifest.session, inputs=manifest.inputs, content=content)
    return "was made by another version of the program (RuntimeError"


@pytest.mark.parametrize("damage", [truncate_weights, set_schema_version, remove_manifest, change_network])
def test_an_unusable_model_is_replaced_by_a_baseline_and_alerted_once(
    damage: Callable[[Path], str], closes: dict[date, float], store: Store, trainer: Run, tmp_path: Path
) -> None:
    train(trainer, store)
    problem = damage(tmp_path / "artifacts" / "models" / "symbol=KS11" / f"session={MODEL_SESSION}")
    manifest, content, output = forecast(trainer, date(2026, 1, 14))
    assert content["source"]["name"] == "baseline: naive" and problem in content["source"]["problem"]
    assert "The current model cannot be used" in output and problem in str(manifest.facts["problem"])
    assert manifest.facts["alerts_problem"] is True
    following = forecast(trainer)[0]
    assert problem in str(following.facts["problem"]) and "alerts_problem" not in following.facts


@pytest.mark.parametrize(
    "change", [None, {"time": "yesterday"}, {"time": "2026-01-02"}, {"session": 20260102}, {"action": "p"}, {"model": None}]
)
def test_a_damaged_registry_does_not_prevent_a_forecast(
    change: dict[str, object] | None, closes: dict[date, float], store: Store, trainer: Run
) -> None:
    """Such as an entry that a person has restored from memory."""
    entry = asdict(RegistryEntry(1, PROMOTED, "models/a/manifest.json", "2026-01-02", "", "2026-01-02T09:00:00+00:00"))
    store.write(f"{paths.promotions('KS11')}/000001.json", canonical(entry | change) if change else b"{")
    manifest, content, _ = forecast(trainer)
    assert content["source"]["name"] == "baseline: naive" and "is not a valid registry entry" in str(manifest.facts["problem"])


def test_too_few_sessions_exit_99_with_the_command_to_collect_them(store: Store, trainer: Run) -> None:
    commit_closes(store, make_closes(20))
    code, output, _ = trainer("forecast", "--session", str(LAST))
    assert code == 99
    assert "too few sessions of KS11 to forecast from 2026-01-15: 20 without a gap, 21 required; collect earlier ones" in output
    commit_price(store, date(2025, 12, 18), 1000.0)
    manifest, content, output = forecast(trainer)
    assert manifest.facts["is_calibrated"] is False and "The interval is not calibrated" in output
    assert not content["is_calibrated"] and content["forecast"][0]["low"]["points"] < content["last_close"]


def test_constant_closes_are_forecast_without_an_error(store: Store, trainer: Run) -> None:
    commit_closes(store, dict.fromkeys(make_closes(100), 1000.0))
    _, content, _ = forecast(trainer)
    assert {point[name]["points"] for point in content["forecast"] for name in ("low", "middle", "high")} == {1000.0}


def test_a_missing_session_starts_the_history_anew(closes: dict[date, float], store: Store, trainer: Run) -> None:
    sessions = list(closes)
    store.remove_folder(paths.prices("KS11", sessions[-10]))
    code, output, _ = trainer("forecast", "--session", str(LAST))
    assert code == 99 and "9 without a gap" in output and f"--from {sessions[-11]} --to {sessions[-9]}" in output
    commit_price(store, sessions[-10], closes[sessions[-10]], change=closes[sessions[-10]] / closes[sessions[-11]] - 1)
    store.remove_folder(paths.prices("KS11", sessions[-60]))
    assert forecast(trainer)[1]["source"]["name"] == "baseline: naive"


def test_a_model_forecasts_with_the_sessions_since_a_gap(closes: dict[date, float], store: Store, trainer: Run) -> None:
    train(trainer, store)
    store.remove_folder(paths.prices("KS11", list(closes)[-23]))  # its window is 16
    assert forecast(trainer)[1]["source"]["name"] == f"model of {MODEL_SESSION}"


def test_a_model_with_too_few_sessions_since_a_gap_is_reported(
    closes: dict[date, float], store: Store, trainer: Run, tmp_path: Path
) -> None:
    (tmp_path / "model.toml").write_text((tmp_path / "model.toml").read_text().replace("window = 16", "window = 30"))
    train(trainer, store)
    store.remove_folder(paths.prices("KS11", list(closes)[-23]))
    manifest, content, _ = forecast(trainer)
    assert content["source"]["name"] == "baseline: naive"
    assert "needs 30 log returns, and there are 21 without a gap" in str(manifest.facts["problem"])


@pytest.mark.parametrize(
    ("session", "message"),
    [
        ("2026-01-17", "KS11 has no close of 2026-01-17, the last is of 2026-01-15"),
        ("2020-01-02", "no sessions of KS11"),
        ("0002-01-15", "no sessions of KS11 from 0001-01-01 to 0002-01-15"),
    ],
)
def test_a_session_without_a_close_exits_65(session: str, message: str, closes: dict[date, float], trainer: Run) -> None:
    code, output, result = trainer("forecast", "--session", session)
    assert code == 65 and message in output and str(result["error"]) in output


def test_a_damaged_price_exits_65_naming_its_object(closes: dict[date, float], trainer: Run, tmp_path: Path) -> None:
    [file] = (tmp_path / "artifacts" / "prices" / "symbol=KS11" / f"session={LAST}").rglob("prices.parquet")
    file.write_bytes(b"")
    code, output, _ = trainer("forecast", "--session", str(LAST))
    assert code == 65 and str(file) in output
    assert not (tmp_path / "artifacts" / "forecasts").exists()


def test_what_became_of_the_forecast_before_is_reported(closes: dict[date, float], trainer: Run) -> None:
    yesterday = LAST - timedelta(days=1)
    before = forecast(trainer, yesterday)[1]["forecast"][0]
    manifest, _, output = forecast(trainer)
    facts = manifest.facts
    assert (facts["previous_session"], facts["previous_middle"]) == (str(yesterday), before["middle"]["points"])
    within = before["low"]["points"] <= closes[LAST] <= before["high"]["points"]
    assert facts["previous_within"] is within
    assert f"That of {yesterday}: " in output and f"became {closes[LAST]:,.0f}" in output
