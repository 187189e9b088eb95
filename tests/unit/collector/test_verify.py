"""`verify` finds each kind of damage in artifacts that the real steps have made, on disk and in a bucket."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from step_contract.checks.findings import Finding, Status
from step_contract.store import Store
from step_contract.verification import verify_store

from .conftest import Run

RANGE = ("--from", "2026-02-09", "--to", "2026-02-13")
PRICES = "prices/symbol=KS11/session=2026-02-11"


@pytest.fixture
def artifacts(collector: Run, tmp_path: Path) -> Path:
    """The decisions and prices of a week."""
    for step in ("decide", "fetch-prices"):
        assert collector(step, *RANGE)[0] == 0
    return tmp_path / "artifacts"


def find(folder: Path, name: str) -> Path:
    return next(folder.rglob(name))


def verify(collector: Run, *options: str) -> tuple[int, list[Finding]]:
    code, output, _ = collector("verify", "--format", "json", *options)
    found = [finding for line in output.splitlines() if (finding := Finding.parse(line))]
    assert found[-1].check == "artifacts" or code not in (0, 65), output
    return code, [finding for finding in found if finding.status is not Status.OK]


def test_complete_artifacts_have_no_finding_but_their_number(artifacts: Path, collector: Run) -> None:
    code, output, _ = collector("verify")
    assert (code, "10 artifacts, 10 of them complete" in output, "0 errors, 0 warnings" in output) == (0, True, False)
    assert verify(collector) == (0, [])


def truncate(artifacts: Path) -> None:
    path = find(artifacts / PRICES, "prices.parquet")
    path.write_bytes(path.read_bytes()[:-5])


def alter(artifacts: Path) -> None:
    path = find(artifacts / PRICES, "prices.parquet")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def remove_file(artifacts: Path) -> None:
    find(artifacts / PRICES, "prices.parquet").unlink()


def alter_manifest(artifacts: Path) -> None:
    path = artifacts / PRICES / "manifest.json"
    path.write_text(path.read_text().replace("2026-02-11", "2026-02-12"))


def copy_by_hand(artifacts: Path) -> None:
    shutil.copytree(artifacts / PRICES, artifacts / PRICES.replace("-11", "-14"))


def remove_session(artifacts: Path) -> None:
    shutil.rmtree(artifacts / PRICES)
    age(find(artifacts / "decisions/symbol=KS11/session=2026-02-11", "manifest.json"))


def lose_model(artifacts: Path) -> None:
    (artifacts / "models/symbol=KS11/promotions").mkdir(parents=True)
    path = artifacts / "models/symbol=KS11/promotions/000001.json"
    path.write_text(json.dumps({"model": "models/symbol=KS11/session=2026-02-01/config=abc/manifest.json"}))


def damage_pointer(artifacts: Path) -> None:
    (artifacts / "models/symbol=KS11").mkdir(parents=True)
    (artifacts / "models/symbol=KS11/current.json").write_text("{")


ERRORS: dict[Callable[[Path], None], tuple[str, str]] = {
    truncate: ("artifact", "is truncated"),
    alter: ("artifact", "is altered"),
    remove_file: ("artifact", "is missing"),
    alter_manifest: ("artifact", "was altered"),
    copy_by_hand: ("artifact", "its manifest is of session 2026-02-11"),
    remove_session: ("hole", "the exchange was open on 2026-02-11, and there are no prices"),
    lose_model: ("pointer", "it names models/symbol=KS11/session=2026-02-01/config=abc/manifest.json, which does not exist"),
    damage_pointer: ("pointer", "no valid JSON"),
}


@pytest.mark.parametrize("damage", ERRORS, ids=lambda damage: damage.__name__)
def test_each_damage_is_an_error_that_names_its_place(damage: Callable[[Path], None], artifacts: Path, collector: Run) -> None:
    damage(artifacts)
    code, [finding] = verify(collector)
    check, message = ERRORS[damage]
    assert (code, finding.check, finding.status) == (65, check, Status.ERROR)
    assert message in finding.message
    assert "2026-02-1" in finding.message + finding.where or "models/" in finding.where


def test_a_run_that_has_decided_and_not_yet_collected_is_no_hole(artifacts: Path, collector: Run) -> None:
    shutil.rmtree(artifacts / PRICES)
    assert verify(collector) == (0, [])


def test_a_damaged_session_outside_of_the_range_is_not_reported(artifacts: Path, collector: Run) -> None:
    truncate(artifacts)
    assert verify(collector, "--from", "2026-02-12")[0] == 0
    assert verify(collector, "--to", "2026-02-10")[0] == 0
    assert verify(collector, "--from", "2026-02-11", "--to", "2026-02-11")[0] == 65


def test_a_damaged_earlier_revision_is_a_warning(artifacts: Path, collector: Run) -> None:
    collector("fetch-prices", "--session", "2026-02-11", "--remake", "a try")
    path = next(path for path in (artifacts / PRICES).rglob("prices.parquet") if "revision" not in str(path))
    path.unlink()
    code, [finding] = verify(collector)
    assert (code, finding.status, finding.check) == (0, Status.WARNING, "artifact")


def age(path: Path) -> None:
    """Let the file be two days old."""
    moment = (datetime.now(UTC) - timedelta(days=2)).timestamp()
    os.utime(path, (moment, moment))


def test_files_of_an_attempt_are_left_over_only_after_a_day(artifacts: Path, collector: Run) -> None:
    folders = [
        artifacts / PRICES / "attempt=0123456789ab",
        artifacts / "prices/symbol=KS11/session=2026-02-16/attempt=0123456789ab",
    ]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "prices.parquet").write_bytes(b"x" * 1000)
    assert verify(collector) == (0, [])
    for folder in folders:
        age(folder / "prices.parquet")
    code, [finding] = verify(collector)
    assert (code, finding.check, finding.status) == (0, "orphan", Status.WARNING)
    assert "2 files of attempts that were not committed, 2.0 kB" in finding.message


def test_objects_that_are_not_the_pipelines_are_listed(artifacts: Path, collector: Run) -> None:
    (artifacts / "notes.txt").write_text("x")
    (artifacts / "prices/symbol=KS11/session=2026-02-11/copy.parquet").write_text("x")
    (artifacts / "monitor/failures").mkdir(parents=True)
    (artifacts / "monitor/failures/x.json").write_text("{}")
    code, [finding] = verify(collector)
    assert (code, finding.check) == (0, "unknown") and finding.message.startswith("2 objects that are none of the pipeline's")
    assert verify(collector, *RANGE)[1] == []


def test_days_without_a_decision_are_a_warning(artifacts: Path, collector: Run) -> None:
    shutil.rmtree(artifacts / "decisions/symbol=KS11/session=2026-02-10")
    code, [finding] = verify(collector)
    assert (code, finding.status) == (0, Status.WARNING)
    assert "KS11: 1 days without a decision, the first is 2026-02-10" in finding.message
    assert "make backfill FROM=2026-02-10 TO=2026-02-10" in finding.advice


def test_a_bucket_is_verified_as_a_folder_is(artifacts: Path, collector: Run, s3: str) -> None:
    truncate(artifacts)
    store = Store(s3)
    for path in sorted(artifacts.rglob("*")):
        if path.is_file():
            store.create(str(path.relative_to(artifacts)), path.read_bytes())
    found = list(verify_store(store, None, None, datetime.now(UTC)))
    assert [(finding.check, finding.status) for finding in found] == [("artifact", Status.ERROR), ("artifacts", Status.OK)]
    later = datetime.now(UTC) + timedelta(days=2)
    store.create(f"{PRICES}/attempt=0123456789ab/prices.parquet", b"x")
    assert "orphan" in [finding.check for finding in verify_store(store, None, None, later)]


@pytest.mark.parametrize("folder", ["nothing", "file/below"])
def test_nothing_at_all_is_a_warning(folder: str, collector: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    code, output, _ = collector("verify", "--artifacts", f"file://{tmp_path}/{folder}")
    assert (code, "warning artifacts: there is no artifact below" in output) == (0, True)


def test_a_bucket_that_does_not_answer_is_one_sentence(s3: str) -> None:
    environment = os.environ | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1", "ARTIFACTS": s3}
    command = [sys.executable, "-m", "collector.cli", "verify"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 65 and f"error   verify: cannot list {s3}/" in done.stdout, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
