"""A range of sessions in one process leaves what a run of each day would have left: models, forecasts and plots."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pytest
from step_contract.store import CachingStore, Store

from ...conftest import describe_artifacts
from .conftest import Run, commit_price
from .test_forecast import LAST, commit_closes, make_closes

FIRST = LAST - timedelta(days=16)  # 30 December
RANGE = ("--from", str(FIRST), "--to", str(LAST))


def copy_history(root: Path) -> str:
    store = Store(f"file://{root}")
    commit_closes(store, make_closes())
    return store.root


def test_a_range_leaves_what_daily_runs_leave(trainer: Run, tmp_path: Path) -> None:
    daily, ranged = (copy_history(tmp_path / name) for name in ("daily", "range"))
    for number in range((LAST - FIRST).days + 1):
        day = FIRST + timedelta(days=number)
        arguments = ("--session", str(day), "--artifacts", daily)
        if day.weekday() < 5:
            assert trainer("forecast", *arguments)[0] == 0
        if day.day in (1, 15):
            assert trainer("train", *arguments)[0] == 0
            assert trainer("plot", *arguments)[0] == 0
    for step in ("train", "forecast", "plot"):
        code, output, _ = trainer(step, *RANGE, "--artifacts", ranged)
        assert code == 0, output
    made = describe_artifacts(tmp_path / "daily")
    assert describe_artifacts(tmp_path / "range") == made
    kinds = Counter(path.partition("/")[0] for path in made)
    assert (kinds["models"], kinds["plots"], kinds["forecasts"]) == (2, 2, 13)


def test_only_training_days_are_trained(trainer: Run, store: Store, tmp_path: Path) -> None:
    commit_closes(store, make_closes())
    code, _, result = trainer("train", *RANGE, "--training-days", "fri")
    assert (code, result["facts"]["committed"]) == (0, 2)
    assert trainer("train", *RANGE, "--training-days", "20")[0] == 99
    assert trainer("train", *RANGE, "--training-days", "friday")[0] == 78


def test_a_range_forecasts_only_collected_sessions_and_each_once(trainer: Run, store: Store) -> None:
    closes = make_closes()
    commit_closes(store, {day: close for day, close in closes.items() if day < LAST - timedelta(days=1)})
    facts = trainer("forecast", *RANGE)[2]["facts"]
    assert (facts["committed"], facts["already_committed"]) == (11, 0)
    facts = trainer("forecast", *RANGE)[2]["facts"]
    assert (facts["committed"], facts["already_committed"]) == (0, 11)


def test_no_forecast_is_issued_after_a_hole_before_the_range(trainer: Run, store: Store) -> None:
    hole = range((FIRST - timedelta(days=25)).toordinal(), FIRST.toordinal())
    commit_closes(store, {day: close for day, close in make_closes().items() if day.toordinal() not in hole})
    code, output, _ = trainer("forecast", *RANGE)
    assert (code, store.list("forecasts")) == (65, [])
    assert "sessions of KS11 are missing between 2025-12-04 and 2025-12-30: collect them first" in output


@pytest.mark.parametrize(
    ("step", "option"), [("train", "--prices"), ("forecast", "--prices"), ("plot", "--model"), ("train", "--as-of")]
)
def test_options_of_one_session_are_rejected_with_a_range(step: str, option: str, trainer: Run, store: Store) -> None:
    value = "2026-01-15T09:00:00Z" if option == "--as-of" else store.uri("prices/manifest.json")
    code, output, _ = trainer(step, *RANGE, option, value)
    assert (code, f"{option} is of one session" in output) == (78, True)


def test_an_artifact_is_read_once_and_other_objects_each_time(store: Store, tmp_path: Path) -> None:
    commit_price(store, date(2026, 1, 15), 100.0)
    manifest = next(name for name in store.list("") if name.endswith("manifest.json"))
    store.create("models/current.json", b"1")
    caching = CachingStore(store.root)
    first = caching.read(manifest)
    assert caching.read("models/current.json") == b"1" and caching.read("missing/manifest.json") is None
    store.replace("models/current.json", b"2")
    (tmp_path / "artifacts" / manifest).unlink()
    assert caching.read_many([manifest, "models/current.json"]) == {manifest: first, "models/current.json": b"2"}
