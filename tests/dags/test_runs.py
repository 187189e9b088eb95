"""The whole DAG for each kind of day, as `make run` runs it: real Airflow, real steps, real data of the sample."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from airflow.sdk import DAG
from step_contract.commit import open_artifact
from step_contract.lineage.references import read_sources
from step_contract.store import Store

from ..conftest import describe_artifacts, make_bucket, s3_variables
from .conftest import ROOT, list_group

pytestmark = pytest.mark.slow

DAYS = {
    "open training day": {"SESSION": "2026-01-15", "HISTORY_YEARS": "3"},
    "open training day in a bucket": {"SESSION": "2026-01-15", "ARTIFACTS": "s3://market/kospi"},
    "ordinary day": {"SESSION": "2026-03-20"},
    "closed day": {"SESSION": "2026-03-02"},
    "closed training day": {"SESSION": "2026-03-01"},
    "suspect day": {"SESSION": "2026-03-23"},
    "damaged source": {"SESSION": "2026-01-15", "SYMBOL": "BAD"},
    "corrected session": {"SESSION": "2026-01-15"},
    "two indexes, one damaged": {"SESSION": "2026-01-15", "SYMBOLS": "KS11,BAD"},
    "missing feeds": {"SESSION": "2026-03-20", "FEEDS": "/nowhere/feeds.toml"},
    "day that the feeds have dropped": {"SESSION": "2020-01-16"},
    "range": {"FROM": "2026-01-12", "TO": "2026-01-18"},
}


@dataclass
class Run:
    code: int
    shown: str
    artifacts: Path

    @property
    def states(self) -> dict[str, str]:
        table = self.shown.partition("\ntask ")[2]
        return dict(re.findall(r"^([\w\[\]]+) +(success|failed|skipped|upstream_failed)\b", table, flags=re.MULTILINE))


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, s3_endpoint: str) -> dict[str, Future[Run]]:
    """Run the kinds of day that the selected tests need, each with its own artifacts, two at a time."""
    selected = [item.callspec.params.get("kind") for item in request.session.items if hasattr(item, "callspec")]
    folder = tmp_path_factory.mktemp("runs")
    real = ROOT / "data" / "krx" / "index" / "year_ks11"
    mirror = folder / "year_bad"
    mirror.mkdir()
    for year in (2023, 2024, 2025):
        (mirror / f"{year}.csv").write_bytes((real / f"{year}.csv").read_bytes())
    (mirror / "2026.csv").write_bytes((real / "2026.csv").read_bytes().replace(b"2026-01-15,4797.55", b"2026-01-15,x"))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    for name in ("PRICES_URL", "SYMBOL", "FEEDS", "ARTIFACTS"):
        del inherited[name]
    inherited |= s3_variables(s3_endpoint)
    make_bucket("market", s3_endpoint)

    earlier = folder / "earlier" / "year_ks11"
    earlier.mkdir(parents=True)
    (folder / "year_ks11").symlink_to(real)
    (earlier / "2026.csv").write_bytes((real / "2026.csv").read_bytes().replace(b"545175207", b"545175206"))

    def run(kind: str) -> Run:
        artifacts = folder / kind.replace(" ", "-")
        settings = {"ARTIFACTS": f"file://{artifacts}", "HISTORY_YEARS": "1"} | DAYS[kind]
        files = {"PRICES_URL": f"file://{folder}/year_{{symbol}}/{{year}}.csv"}
        if {"SYMBOL", "SYMBOLS"} & settings.keys():
            settings |= files
        if kind == "corrected session":
            command = [str(ROOT / "scripts" / "step"), "collector", "fetch-prices", "--session", settings["SESSION"]]
            source = {"PRICES_URL": f"file://{folder}/earlier/year_{{symbol}}/{{year}}.csv"}
            subprocess.run(command, env=inherited | settings | source, capture_output=True, check=True)
        done = subprocess.run([ROOT / "scripts" / "run"], env=inherited | settings, capture_output=True, text=True)
        return Run(done.returncode, done.stdout + done.stderr, artifacts)

    pool = ThreadPoolExecutor(2)
    return {kind: pool.submit(run, kind) for kind in DAYS if kind in selected}


@pytest.mark.parametrize(
    ("kind", "skipped"),
    [
        ("open training day", {"closed", "suspect"}),
        ("open training day in a bucket", {"closed", "suspect"}),
        ("ordinary day", {"closed", "suspect", "model"}),
        ("day that the feeds have dropped", {"closed", "suspect", "model"}),
        ("closed day", {"open", "fetch_prices", "fetch_headlines", "forecast", "suspect", "model"}),
        ("closed training day", {"open", "fetch_prices", "fetch_headlines", "forecast", "suspect"}),
        ("suspect day", {"open", "fetch_prices", "fetch_headlines", "forecast", "closed", "model"}),
    ],
)
@pytest.mark.timeout(600)
def test_each_kind_of_day_runs_its_tasks_only(kind: str, skipped: set[str], runs: dict[str, Future[Run]], dag: DAG) -> None:
    run = runs[kind].result()
    assert run.code == 0, run.shown
    tasks = {task_id for name in skipped for task_id in (list_group(dag, name) if name == "model" else {name})}
    assert run.states == {task_id: "skipped" if task_id in tasks else "success" for task_id in dag.task_ids}


@pytest.mark.parametrize("kind", ["range"])
@pytest.mark.timeout(600)
def test_a_range_makes_what_ordinary_days_leave(kind: str, runs: dict[str, Future[Run]]) -> None:
    run = runs[kind].result()
    assert run.code == 0, run.shown
    assert {task_id for task_id, state in run.states.items() if state == "skipped"} == {"train", "plot"}, run.shown
    made = describe_artifacts(run.artifacts)
    counts = Counter(path.partition("/")[0] for path in made if "2026-01-12" <= made[path]["session"] <= "2026-01-18")
    assert counts == {"decisions": 7, "prices": 5, "headlines": 5, "forecasts": 5}


def test_a_session_and_a_range_at_once_are_rejected() -> None:
    settings = {"SESSION": "2026-01-15", "FROM": "2026-01-12", "TO": "2026-01-18"}
    done = subprocess.run([ROOT / "scripts" / "run"], env=os.environ | settings, capture_output=True, text=True)
    assert (done.returncode, "use either a session or a range" in done.stderr) == (78, True)


@pytest.mark.parametrize("kind", ["open training day", "closed training day"])
@pytest.mark.timeout(600)
def test_a_training_day_prints_the_path_of_a_picture(kind: str, runs: dict[str, Future[Run]]) -> None:
    last = runs[kind].result().shown.strip().splitlines()[-1]
    assert last.startswith("plot: /")
    assert Path(last.removeprefix("plot: ")).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", ["open training day in a bucket"])
@pytest.mark.timeout(600)
def test_a_training_day_in_a_bucket_prints_the_uri_of_a_picture(kind: str, runs: dict[str, Future[Run]]) -> None:
    last = runs[kind].result().shown.strip().splitlines()[-1]
    assert last.startswith("plot: s3://market/kospi/plots/symbol=KS11/session=2026-01-15/config=")


@pytest.mark.parametrize("kind", ["open training day"])
@pytest.mark.timeout(600)
def test_every_artifact_of_a_run_is_complete(kind: str, runs: dict[str, Future[Run]]) -> None:
    run = runs[kind].result()
    manifests = sorted(run.artifacts.rglob("manifest.json"))
    kinds = {path.relative_to(run.artifacts).parts[0] for path in manifests}
    assert kinds >= {"decisions", "prices", "headlines", "forecasts", "models", "plots"}
    for path in [path for path in manifests if "session=2026-01-1" in str(path)]:
        open_artifact(f"file://{path}")


def find_manifest(run: Run, task_id: str) -> str:
    """Return the path of the manifest that the run's table shows for the task."""
    [path] = re.findall(rf"^{task_id} .* (\S+/manifest\.json)$", run.shown, flags=re.MULTILINE)
    return str(path)


def list_sources(run: Run, path: str, role: str) -> list[str]:
    """Return the URIs of the sources of an artifact by its path."""
    store = Store(f"file://{run.artifacts}")
    directory = path.rpartition("/")[0]
    manifest = open_artifact(store.uri(path))[0]
    return [source.uri for source in read_sources(store, directory, manifest) if source.role == role]


@pytest.mark.parametrize("kind", ["open training day"])
@pytest.mark.timeout(600)
def test_training_and_plot_are_made_from_what_the_run_has_returned(kind: str, runs: dict[str, Future[Run]]) -> None:
    run = runs[kind].result()
    root = f"file://{run.artifacts}"
    for task_id in ("train", "forecast"):
        assert list_sources(run, find_manifest(run, task_id), "prices")[-1] == f"{root}/{find_manifest(run, 'fetch_prices')}"
    assert list_sources(run, find_manifest(run, "plot"), "model") == [f"{root}/{find_manifest(run, 'train')}"]


@pytest.mark.parametrize("kind", ["closed training day"])
@pytest.mark.timeout(600)
def test_a_closed_training_day_trains_on_the_latest_session(kind: str, runs: dict[str, Future[Run]]) -> None:
    """1 March 2026 is a Sunday."""
    run = runs[kind].result()
    assert "session=2026-02-27" in list_sources(run, find_manifest(run, "train"), "prices")[-1]


@pytest.mark.parametrize("kind", ["open training day"])
@pytest.mark.timeout(600)
def test_the_lineage_of_a_plot_reaches_the_source_files(kind: str, runs: dict[str, Future[Run]], tmp_path: Path) -> None:
    run = runs[kind].result()
    copy = tmp_path / "artifacts"
    shutil.copytree(run.artifacts, copy)

    def trace() -> subprocess.CompletedProcess[str]:
        command = [f"{ROOT}/.venvs/trainer/bin/trainer", "lineage", f"file://{copy}/{find_manifest(run, 'plot')}"]
        return subprocess.run(command, capture_output=True, text=True)

    done = trace()
    assert done.returncode == 0, done.stdout + done.stderr
    for text in (
        "model: models/",
        "train of 2026-01-15",
        "commit ",
        "source: file://",
        "year_ks11/2023.csv",
        "year_ks11/2026.csv",
    ):
        assert text in done.stdout
    [damaged] = (copy / "prices" / "symbol=KS11" / "session=2025-06-02").rglob("prices.parquet")
    damaged.write_bytes(b"x")
    shutil.rmtree(copy / "prices" / "symbol=KS11" / "session=2025-06-04")
    done = trace()
    assert (
        done.returncode == 65 and str(damaged) in done.stdout and "session=2025-06-04/manifest.json is missing" in done.stdout
    )


@pytest.mark.parametrize("kind", ["missing feeds"])
@pytest.mark.timeout(600)
def test_a_failed_step_fails_the_run_with_its_message(kind: str, runs: dict[str, Future[Run]]) -> None:
    run = runs[kind].result()
    assert run.code == 1
    assert run.states["fetch_headlines"] == "failed"
    assert "fetch-headlines: cannot read the feeds file /nowhere/feeds.toml" in run.shown


@pytest.mark.parametrize("kind", ["missing feeds"])
@pytest.mark.timeout(600)
def test_without_headlines_the_prices_are_collected_and_the_gate_runs(kind: str, runs: dict[str, Future[Run]]) -> None:
    states = runs[kind].result().states
    assert (states["fetch_prices"], states["is_training_day"]) == ("success", "success")


@pytest.mark.parametrize("kind", ["corrected session"])
@pytest.mark.timeout(600)
def test_without_prices_the_headlines_are_collected_and_nothing_is_trained(kind: str, runs: dict[str, Future[Run]]) -> None:
    run = runs[kind].result()
    expected = {"fetch_prices": "failed", "fetch_headlines": "success"}
    expected |= dict.fromkeys(("forecast", "train", "plot"), "upstream_failed")
    assert run.code == 1 and {task: run.states[task] for task in expected} == expected, run.shown


@pytest.mark.parametrize("kind", ["day that the feeds have dropped"])
@pytest.mark.timeout(600)
def test_a_run_shows_that_headlines_are_not_available(kind: str, runs: dict[str, Future[Run]]) -> None:
    run = runs[kind].result()
    assert "headlines: not available for this session" in run.shown
    [uri] = re.findall(r"^fetch_headlines .* (headlines/\S+)$", run.shown, flags=re.MULTILINE)
    assert open_artifact(f"file://{run.artifacts}/{uri}")[0].facts["availability"] == "unavailable"


@pytest.mark.parametrize("kind", ["ordinary day", "open training day"])
@pytest.mark.timeout(600)
def test_an_open_day_prints_its_forecast_and_who_made_it(kind: str, runs: dict[str, Future[Run]]) -> None:
    """Also on a training day: a model that is trained today is used from the next session on."""
    shown = " ".join(runs[kind].result().shown.split())
    assert re.search(r"80% interval: [\d,]+ \[[\d,]+; [\d,]+\] one session ahead, .* \(baseline: (naive|drift)\)\.", shown)


@pytest.mark.parametrize("kind", ["damaged source"])
@pytest.mark.timeout(600)
def test_an_invalid_history_fails_the_run_with_the_collectors_message(kind: str, runs: dict[str, Future[Run]]) -> None:
    run = runs[kind].result()
    assert run.code == 65
    assert re.search(r"2026\.csv, line 11, column Close: 'x' is not a finite number greater than 0", run.shown)


def read_channel(run: Run) -> str:
    """Return the text of the page that shows a run's Slack channel."""
    [page] = re.findall(r"^slack: (.+) \(Slack simulator\)$", run.shown, flags=re.MULTILINE)
    text = re.sub(r"<style.*?</style>|<[^>]+>", " ", Path(page).read_text(), flags=re.DOTALL)
    return " ".join(html.unescape(text).split())


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (
            "open training day",
            r"Thu 15 Jan 2026 (?=.*2 headlines)(?=.*· forecast [\d,]+ \[[\d,]+; [\d,]+\] \(baseline: )(?=.*· training day ·)"
            r".*model not promoted .* plot.png "
            r".*replied to a thread: .* Thu 15 Jan 2026 .* plot.png",
        ),
        ("day that the feeds have dropped", r"Thu 16 Jan 2020 .*headlines: not available for this session"),
        ("corrected session", "Thu 15 Jan 2026 fetch_prices failed: invalid data .*2 headlines"),
        ("closed day", "Mon 2 Mar 2026 closed: .* not a training day .*replied to a thread: "),
        ("suspect day", "Mon 23 Mar 2026 suspect: .* is suspect: .* What to do: Check the source"),
        ("missing feeds", "Fri 20 Mar 2026 fetch_headlines failed: invalid configuration .* What to do: Correct the option"),
    ],
)
def test_without_slack_a_page_shows_its_messages(kind: str, text: str, runs: dict[str, Future[Run]]) -> None:
    assert re.search(text, read_channel(runs[kind].result()))


@pytest.mark.parametrize("kind", ["two indexes, one damaged"])
@pytest.mark.timeout(600)
def test_an_index_that_fails_stops_no_other_and_the_run_is_one_message(kind: str, runs: dict[str, Future[Run]]) -> None:
    run = runs[kind].result()
    states = run.states
    assert run.code == 1 and states["decide[1]"] == "failed", run.shown
    assert {states[f"{task}[0]"] for task in ("decide", "fetch_prices", "forecast", "train", "plot")} == {"success"}
    assert {states[f"{task}[1]"] for task in ("fetch_prices", "train", "plot")} == {"upstream_failed"}
    assert states["fetch_headlines"] == "success"
    assert run.shown.strip().splitlines()[-1].startswith("plot: /")
    text = r"Thu 15 Jan 2026 decide\[1\] failed: invalid data .*2 headlines"
    assert re.search(text, read_channel(run)) and read_channel(run).count("market_daily · started") == 1
