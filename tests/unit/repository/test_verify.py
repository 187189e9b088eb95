"""`make verify` and `make repair`: what is damaged on this machine is made anew by the real programs, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checks.program_pods import make_pod
from devtools.commands import ROOT
from step_contract.checks.findings import Finding, error, warning
from step_contract.repair import Repair, plan_repairs

PRICES = "prices/symbol=KS11/session=2026-02-11"
COMMAND = [sys.executable, str(ROOT / "scripts" / "verify.py")]


def where(kind: str, day: str = "2026-02-11", more: str = "") -> str:
    symbol = "" if kind == "headlines" else "/symbol=KS11"
    return f"{kind}{symbol}/session={day}{more}/manifest.json"


def test_what_is_made_from_others_is_repaired_after_them_and_each_once() -> None:
    findings = [
        error("artifact", "x", "", where("plots", more="/config=abc")),
        error("artifact", "x", "", where("models", more="/config=abc")),
        error("artifact", "x", "", where("headlines", more="/feeds=abc")),
        error("artifact", "x", "", where("prices", "2026-02-12")),
        error("hole", "x", "", where("prices", "2026-02-10")),
        error("artifact", "x", "", where("decisions", more="/state=open")),
        error("artifact", "y", "", where("decisions", more="/state=open")),
        warning("artifact", "x", "", where("prices", "2026-02-09")),
    ]
    session, symbol, remake = ("--session", "2026-02-11"), ("--symbol", "KS11"), ("--remake", "damaged")
    assert plan_repairs(findings).repairs == (
        Repair("collector", ("decide", *session, *symbol, *remake)),
        Repair("collector", ("fetch-prices", "--session", "2026-02-10", *symbol)),
        Repair("collector", ("fetch-prices", "--session", "2026-02-12", *symbol, *remake)),
        Repair("collector", ("fetch-headlines", *session, *remake)),
        Repair("trainer", ("train", *session, *symbol, *remake)),
        Repair("trainer", ("plot", *session, *symbol, *remake)),
    )
    assert plan_repairs(findings).remaining == ()


@pytest.mark.parametrize(
    ("finding", "reason"),
    [
        (error("artifact", "x", "", where("forecasts")), "what was issued on a day cannot be made anew"),
        (error("pointer", "x", "restore it", "models/symbol=KS11/current.json"), "restore it"),
        (error("verify", "cannot list", "", ""), "no command repairs it"),
    ],
)
def test_what_cannot_be_repaired_is_named_with_the_reason(finding: Finding, reason: str) -> None:
    plan = plan_repairs([finding])
    assert plan.repairs == () and plan.remaining[0][0] is finding and reason in plan.remaining[0][1]


def test_the_pod_has_the_options_of_the_template_that_the_step_has_too() -> None:
    options = ["--artifacts", "s3://market/artifacts", "--symbol", "KS11", "--format", "json", "--prices-url", "s3://x/{year}"]
    container = {"image": "collector", "args": ["check", *options], "env": [{"name": "A", "value": "b"}]}
    template = {
        "metadata": {"namespace": "steps", "name": "x"},
        "spec": {"activeDeadlineSeconds": 120, "containers": [container]},
    }
    pod = make_pod(template, "collector", ["fetch-prices", "--session", "2026-02-11"], {})
    expected = [
        "fetch-prices",
        "--session",
        "2026-02-11",
        "--artifacts",
        "s3://market/artifacts",
        "--prices-url",
        "s3://x/{year}",
    ]
    assert pod["spec"]["containers"][0]["args"] == expected
    assert pod["spec"]["containers"][0]["env"] == container["env"] and pod["spec"]["activeDeadlineSeconds"] == 3600
    verify = make_pod(template, "collector", ["verify"], {"history_years": "5"})
    assert verify["spec"]["containers"][0]["args"] == ["verify", *options[:2]]


def test_a_training_in_a_pod_makes_the_model_that_the_dag_makes() -> None:
    container = {"args": ["check", "--artifacts", "s3://market/artifacts"]}
    template = {"metadata": {"namespace": "steps", "name": "x"}, "spec": {"containers": [container]}}
    pod = make_pod(template, "trainer", ["train", "--session", "2026-02-11"], {"history_years": "5", "plot_language": "ko"})
    expected = ["train", "--session", "2026-02-11", "--artifacts", "s3://market/artifacts", "--history-years", "5"]
    assert pod["spec"]["containers"][0]["args"] == expected


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The decisions and prices of a week, made by the real program."""
    folder = tmp_path_factory.mktemp("verify") / "artifacts"
    for step in ("decide", "fetch-prices"):
        command = [str(ROOT / "scripts" / "step"), "collector", step, "--from", "2026-02-09", "--to", "2026-02-13"]
        subprocess.run(command, env=os.environ | {"ARTIFACTS": f"file://{folder}"}, check=True, capture_output=True)
    return folder


@pytest.fixture
def artifacts(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "artifacts"))


def run(artifacts: Path, *options: str, **settings: str) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("FROM", "TO", "JSON", "DRY_RUN")}
    environment |= {"ARTIFACTS": f"file://{artifacts}", "PYTHON": sys.executable} | settings
    done = subprocess.run([*COMMAND, *options], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def damage(artifacts: Path) -> None:
    """Truncate a price file, alter a decision, and remove the prices of another session."""
    path = next((artifacts / PRICES).rglob("prices.parquet"))
    path.write_bytes(path.read_bytes()[:-5])
    next((artifacts / "decisions/symbol=KS11/session=2026-02-12").rglob("decision.json")).write_text("{}")
    shutil.rmtree(artifacts / "prices/symbol=KS11/session=2026-02-13")
    two_days_ago = time.time() - 2 * 86400
    os.utime(artifacts / "decisions/symbol=KS11/session=2026-02-13/state=open/manifest.json", (two_days_ago, two_days_ago))


def list_files(artifacts: Path) -> dict[str, bytes]:
    return {str(path.relative_to(artifacts)): path.read_bytes() for path in sorted(artifacts.rglob("*")) if path.is_file()}


def test_damage_is_reported_repaired_and_gone(artifacts: Path) -> None:
    damage(artifacts)
    before = list_files(artifacts)
    code, output = run(artifacts)
    assert (code, "3 errors, 0 warnings" in output) == (1, True), output
    code, output = run(artifacts, "--repair", DRY_RUN="1")
    assert code == 1 and output.count("would run: collector ") == 3 and list_files(artifacts) == before
    code, output = run(artifacts, "--repair")
    assert (code, "3 of 3 repaired; verifying again" in output, "0 errors, 2 warnings" in output) == (0, True, True), output
    after = list_files(artifacts)
    # Nothing is deleted or rewritten; the repaired file has the bytes that it had before it was damaged.
    assert {name: after[name] for name in before} == before
    assert {name.partition("/attempt=")[0] for name in after.keys() - before.keys()} == {
        f"{PRICES}/revision=2",
        f"{PRICES}/revision=2/manifest.json",
        "decisions/symbol=KS11/session=2026-02-12/state=open/revision=2",
        "decisions/symbol=KS11/session=2026-02-12/state=open/revision=2/manifest.json",
        "prices/symbol=KS11/session=2026-02-13",
        "prices/symbol=KS11/session=2026-02-13/manifest.json",
    }


def test_a_repair_that_was_killed_is_continued(artifacts: Path, made: Path) -> None:
    damage(artifacts)
    environment = os.environ | {"ARTIFACTS": f"file://{artifacts}", "PYTHON": sys.executable}
    process = subprocess.Popen(
        [*COMMAND, "--repair"], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list((artifacts / "decisions").rglob("revision=2/manifest.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    code, output = run(artifacts, "--repair")
    assert (code, "0 errors" in output.splitlines()[-1]) == (0, True), output
    repaired = next((artifacts / PRICES / "revision=2").rglob("prices.parquet")).read_bytes()
    assert repaired == next((made / PRICES).rglob("prices.parquet")).read_bytes()


def test_an_invalid_range_is_one_sentence(artifacts: Path) -> None:
    code, output = run(artifacts, FROM="yesterday")
    assert code == 1 and "invalid date 'yesterday': use YYYY-MM-DD" in output and "Traceback" not in output


def test_the_documentation_describes_each_line() -> None:
    code = (ROOT / "images" / "contract" / "step_contract" / "verification.py").read_text()
    used = set(re.findall(r'\b(?:ok|warning|error|status)\(\s*"([a-z-]+)"', code))
    documented = set(re.findall(r"^\| `([a-z-]+)`", (ROOT / "docs" / "verify.md").read_text(), re.MULTILINE))
    assert used == documented and len(used) > 7
