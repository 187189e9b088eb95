"""The parts of make test and make test-e2e: every test belongs to one, and cluster tests run on their own cluster only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import e2e
import pytest
import run_tests
from devtools.commands import ROOT

E2E = ROOT / "tests" / "e2e"


def test_every_test_file_belongs_to_a_part() -> None:
    files = {file for file in (ROOT / "tests").rglob("test_*.py") if E2E not in file.parents}
    covered = [ROOT / path for part in run_tests.PARTS.values() for path in part.paths]
    assert len(files) > 50
    assert [file for file in files if not any(path in (file, *file.parents) for path in covered)] == []


def run_script(name: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / name), *options]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=60)


def test_the_parts_of_the_cluster_tests_are_the_folders() -> None:
    folders = sorted({file.parent.name for file in E2E.rglob("test_*.py")})
    error = run_script("e2e.py", PART="nonsense").stderr
    assert sorted(error.partition("one of ")[2].partition(", or")[0].split(", ")) == folders


def collect_tests(part: str, mark: str) -> list[str]:
    """Return the cluster tests of a part that have the mark."""
    command = [sys.executable, "-m", "pytest", str(E2E / part), f"--rootdir={ROOT}", "-p", "no:cacheprovider", "--collect-only"]
    chosen = [*command, *(["-m", mark] if mark else [])]
    completed = subprocess.run(chosen, env=os.environ | {"E2E_CLUSTER": "none"}, cwd=ROOT, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return [line for line in completed.stdout.splitlines() if "::" in line]


@pytest.mark.slow
def test_every_cluster_test_runs_once() -> None:
    groups = [group for turn in e2e.TURNS for lane in turn for group in lane]
    for part in {part for part, _ in groups}:
        chosen = Counter(test for name, mark in groups if name == part for test in collect_tests(part, mark))
        assert chosen == Counter(collect_tests(part, "")) and chosen


@pytest.mark.parametrize("script", ["run_tests.py", "e2e.py"])
def test_an_unknown_part_is_rejected_with_the_known_ones(script: str) -> None:
    completed = run_script(script, PART="core,nonsense" if script == "e2e.py" else "collector,nonsense")
    assert completed.returncode == 1
    assert "invalid PART: nonsense; must be one of " in completed.stderr


def test_options_that_select_no_test_fail() -> None:
    completed = run_script("run_tests.py", "-k", "no_test_has_this_name", PART="contract")
    assert completed.returncode == 1
    assert "no tests were run" in completed.stderr


@pytest.mark.parametrize("cluster", ["", "market-daily"])
def test_cluster_tests_refuse_to_run_on_the_developers_cluster(cluster: str) -> None:
    command = [sys.executable, "-m", "pytest", str(E2E), f"--rootdir={ROOT}", "-p", "no:cacheprovider"]
    completed = subprocess.run(command, env=os.environ | {"E2E_CLUSTER": cluster}, cwd=ROOT, capture_output=True, text=True)
    assert completed.returncode == 4
    assert "set E2E_CLUSTER to the name of a kind cluster" in (completed.stdout + completed.stderr).replace("\n", " ")


def test_make_test_e2e_refuses_the_developers_cluster(tmp_path: Path) -> None:
    for name in ("docker", "kind", "helm", "kubectl", "git"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 0\n")
        (tmp_path / name).chmod(0o755)
    completed = run_script("e2e.py", E2E_CLUSTER="market-daily", PART="", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert completed.returncode == 1
    assert "market-daily is the cluster of make kind-up" in completed.stderr
