"""What holds when the source says of a committed session something else than it did."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from arro3.io import read_parquet
from step_contract import paths
from step_contract.commit import open_artifact
from step_contract.schemas import PRICES_FILE
from step_contract.store import Store

from .conftest import Run

OLD, NEW = b",34025853798776,", b",34025853798777,"


def amount(uri: object) -> int:
    table = read_parquet(io.BytesIO(open_artifact(str(uri))[1][PRICES_FILE])).read_all()
    value: int = table.column("amount")[0].as_py()
    return value


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def correct(mirror: Path) -> Callable[[bytes, bytes], None]:
    """Has the source correct 2026."""

    def change(old: bytes, new: bytes) -> None:
        data = (mirror / "2026.csv").read_bytes()
        assert data.count(old) == 1
        (mirror / "2026.csv").write_bytes(data.replace(old, new))

    return change


Correct = Callable[[bytes, bytes], None]


def test_a_corrected_bar_is_told_with_what_to_do_and_the_committed_one_stays(
    collector: Run, correct: Correct, tmp_path: Path
) -> None:
    collector("fetch-prices", "--session", "2026-03-20")
    before = everything(tmp_path / "artifacts")
    correct(OLD, NEW)
    code, shown, _ = collector("fetch-prices", "--session", "2026-03-20")
    assert code == 65
    assert "2026-03-20: amount 34025853798776 is now 34025853798777" in shown
    assert "run collector fetch-prices --session 2026-03-20 --accept-corrections" in shown
    assert everything(tmp_path / "artifacts") == before


def test_a_correction_that_is_taken_lies_beside_the_first_and_is_what_is_read(
    collector: Run, correct: Correct, tmp_path: Path
) -> None:
    first = collector("fetch-prices", "--session", "2026-03-20")[2]["manifest"]
    before = everything(tmp_path / "artifacts")
    correct(OLD, NEW)
    code, _, result = collector("fetch-prices", "--session", "2026-03-20", "--accept-corrections")
    assert (code, result["facts"]["revision"]) == (0, 2)
    assert str(result["manifest"]).endswith("/session=2026-03-20/revision=2/manifest.json")
    assert (amount(first), amount(result["manifest"])) == (34025853798776, 34025853798777)
    assert before.items() <= everything(tmp_path / "artifacts").items()
    store = Store(f"file://{tmp_path}/artifacts")
    [read] = paths.latest_revisions(store.list(paths.prices_root("KS11"))).values()
    assert store.uri(read) == result["manifest"]
    again = collector("fetch-prices", "--session", "2026-03-20")
    assert (again[0], again[2]["manifest"], "committed before" in again[1]) == (0, result["manifest"], True)


def test_a_correction_that_is_taken_back_by_the_source_is_a_correction_again(collector: Run, correct: Correct) -> None:
    collector("fetch-prices", "--session", "2026-03-20")
    correct(OLD, NEW)
    collector("fetch-prices", "--session", "2026-03-20", "--accept-corrections")
    correct(NEW, OLD)
    code, shown, _ = collector("fetch-prices", "--session", "2026-03-20")
    assert (code, "amount 34025853798777 is now 34025853798776" in shown) == (65, True)
    result = collector("fetch-prices", "--session", "2026-03-20", "--accept-corrections")[2]
    assert "/revision=3/" in str(result["manifest"])


def test_a_day_tells_of_corrections_to_the_days_before_and_is_committed_itself(collector: Run, correct: Correct) -> None:
    collector("fetch-prices", "--session", "2026-03-19")
    correct(b"22994678385098,", b"22994678385099,")
    code, shown, result = collector("fetch-prices", "--session", "2026-03-20")
    told = "2026-03-19: amount 22994678385098 is now 22994678385099"
    assert (code, told in shown, told in str(result["facts"]["corrected"])) == (0, True, True)
    assert collector("fetch-prices", "--session", "2026-03-20")[0] == 0


def test_a_range_tells_of_every_correction_and_commits_the_rest(collector: Run, correct: Correct) -> None:
    collector("fetch-prices", "--from", "2026-03-18", "--to", "2026-03-19")
    correct(b"22994678385098,", b"22994678385099,")
    code, shown, _ = collector("fetch-prices", "--from", "2026-03-18", "--to", "2026-03-20")
    assert (code, "2026-03-19: amount" in shown, "committed: 1 others" in shown) == (65, True, True)
    code, shown, result = collector("fetch-prices", "--from", "2026-03-18", "--to", "2026-03-20", "--accept-corrections")
    assert (code, result["facts"]["revised"]) == (0, 1)
    assert "0 sessions committed, 3 were there, 1 revised" in shown
