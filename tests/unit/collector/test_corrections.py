"""Corrections: the source changes the bar of a committed session."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from arro3.io import read_parquet
from step_contract import paths
from step_contract.commit import open_artifact
from step_contract.schemas import PRICES
from step_contract.store import Store

from .conftest import Run

OLD, NEW = b",34025853798776,", b",34025853798777,"


def amount(uri: object) -> int:
    table = read_parquet(io.BytesIO(open_artifact(str(uri))[1][PRICES.file])).read_all()
    value: int = table.column("amount")[0].as_py()
    return value


def read_all_files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def correct(mirror: Path) -> Callable[[bytes, bytes], None]:
    """A function that replaces bytes in the source's file of 2026."""

    def change(old: bytes, new: bytes) -> None:
        data = (mirror / "2026.csv").read_bytes()
        assert data.count(old) == 1
        (mirror / "2026.csv").write_bytes(data.replace(old, new))

    return change


Correct = Callable[[bytes, bytes], None]


def test_correction_fails_with_advice_and_keeps_committed_bar(collector: Run, correct: Correct, tmp_path: Path) -> None:
    collector("fetch-prices", "--session", "2026-03-20")
    before = read_all_files(tmp_path / "artifacts")
    correct(OLD, NEW)
    code, output, _ = collector("fetch-prices", "--session", "2026-03-20")
    assert code == 65
    assert "2026-03-20: amount 34025853798776 is now 34025853798777" in output
    assert "run collector fetch-prices --session 2026-03-20 --accept-corrections" in output
    assert read_all_files(tmp_path / "artifacts") == before


def test_accepted_correction_is_a_revision_that_readers_use(collector: Run, correct: Correct, tmp_path: Path) -> None:
    first = collector("fetch-prices", "--session", "2026-03-20")[2]["manifest"]
    before = read_all_files(tmp_path / "artifacts")
    correct(OLD, NEW)
    code, _, result = collector("fetch-prices", "--session", "2026-03-20", "--accept-corrections")
    assert (code, result["facts"]["revision"]) == (0, 2)
    assert str(result["manifest"]).endswith("/session=2026-03-20/revision=2/manifest.json")
    assert (amount(first), amount(result["manifest"])) == (34025853798776, 34025853798777)
    assert before.items() <= read_all_files(tmp_path / "artifacts").items()
    store = Store(f"file://{tmp_path}/artifacts")
    [revisions] = paths.session_revisions(store.list(paths.prices_root("KS11"))).values()
    assert [store.uri(path) for path in revisions.values()] == [first, result["manifest"]]
    assert open_artifact(str(result["manifest"]))[0].reason == "correction"
    rerun = collector("fetch-prices", "--session", "2026-03-20")
    assert (rerun[0], rerun[2]["manifest"], "already committed" in rerun[1]) == (0, result["manifest"], True)


def test_reverted_correction_is_another_correction(collector: Run, correct: Correct) -> None:
    collector("fetch-prices", "--session", "2026-03-20")
    correct(OLD, NEW)
    collector("fetch-prices", "--session", "2026-03-20", "--accept-corrections")
    correct(NEW, OLD)
    code, output, _ = collector("fetch-prices", "--session", "2026-03-20")
    assert (code, "amount 34025853798777 is now 34025853798776" in output) == (65, True)
    result = collector("fetch-prices", "--session", "2026-03-20", "--accept-corrections")[2]
    assert "/revision=3/" in str(result["manifest"])


def test_corrections_of_earlier_sessions_are_reported_without_failing(collector: Run, correct: Correct) -> None:
    collector("fetch-prices", "--session", "2026-03-19")
    correct(b"22994678385098,", b"22994678385099,")
    code, output, result = collector("fetch-prices", "--session", "2026-03-20")
    correction = "2026-03-19: amount 22994678385098 is now 22994678385099"
    assert (code, correction in output, correction in str(result["facts"]["corrected"])) == (0, True, True)
    assert collector("fetch-prices", "--session", "2026-03-20")[0] == 0


def test_range_reports_corrections_and_commits_other_sessions(collector: Run, correct: Correct) -> None:
    collector("fetch-prices", "--from", "2026-03-18", "--to", "2026-03-19")
    correct(b"22994678385098,", b"22994678385099,")
    code, output, _ = collector("fetch-prices", "--from", "2026-03-18", "--to", "2026-03-20")
    assert (code, "2026-03-19: amount" in output, "other sessions committed: 1" in output) == (65, True, True)
    code, output, result = collector("fetch-prices", "--from", "2026-03-18", "--to", "2026-03-20", "--accept-corrections")
    assert (code, result["facts"]["revised"]) == (0, 1)
    assert "0 sessions committed, 3 already committed, 1 revised" in output
