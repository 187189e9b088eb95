"""The official chart is fetched once, from a chart repository over HTTP, and cached."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from devtools import helm_charts
from devtools.commands import ROOT, ToolError, run

from .conftest import skip

VERSION = "9.8.7"


class Repository(ThreadingHTTPServer):
    """A chart repository on loopback. `before_chart` is called with the request before a chart is sent; false sends nothing."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.requests: list[str] = []
        self.before_chart: Callable[[SimpleHTTPRequestHandler], bool] = lambda request: True
        repository = self

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *arguments: object) -> None:
                super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

            def do_GET(self) -> None:
                repository.requests.append(self.path)
                if not self.path.endswith(".tgz") or repository.before_chart(self):
                    super().do_GET()

            def log_message(self, *arguments: object) -> None:
                """Suppress the log."""

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    @property
    def downloads(self) -> int:
        return sum(path.endswith(".tgz") for path in self.requests)


@pytest.fixture(scope="session")
def charts(helm: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a chart repository: a chart `airflow` and the index."""
    folder = tmp_path_factory.mktemp("charts")
    source = folder / "source" / "airflow"
    source.mkdir(parents=True)
    (source / "Chart.yaml").write_text(f"apiVersion: v2\nname: airflow\nversion: {VERSION}\n")
    run(["helm", "package", str(source), "--destination", str(folder)], timeout=60)
    shutil.rmtree(folder / "source")
    run(["helm", "repo", "index", str(folder)], timeout=60)
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(helm_charts, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("CHART_VERSION", VERSION)
    monkeypatch.delenv("AIRFLOW_CHART", raising=False)
    monkeypatch.delenv("AIRFLOW_CHART_REPOSITORY", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def repository(charts: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    with Repository(charts) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("AIRFLOW_CHART_REPOSITORY", server.url)
        yield server
        server.shutdown()


def is_complete(path: str) -> bool:
    with tarfile.open(path) as file:
        return "airflow/Chart.yaml" in file.getnames()


def test_the_chart_is_fetched_once(repository: Repository, cache: Path) -> None:
    fetched = helm_charts.chart_of("airflow")
    assert Path(fetched) == cache / f"airflow-{VERSION}.tgz" and is_complete(fetched)
    assert helm_charts.chart_of("airflow") == fetched and repository.downloads == 1
    assert [file.name for file in cache.iterdir()] == [f"airflow-{VERSION}.tgz"]


def test_another_version_is_fetched_again(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    helm_charts.official_chart()
    monkeypatch.setenv("CHART_VERSION", "9.8.8")
    with pytest.raises(ToolError, match=r"cannot fetch the Airflow chart 9\.8\.8"):
        helm_charts.official_chart()


def test_airflow_chart_takes_precedence_and_nothing_is_fetched(
    repository: Repository, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CHART", "oci://registry.example.com/charts/airflow")
    assert helm_charts.chart_of("airflow") == "oci://registry.example.com/charts/airflow"
    assert not repository.requests and not cache.exists()


def test_two_processes_can_fetch_it_at_once(repository: Repository, cache: Path) -> None:
    barrier = threading.Barrier(2, timeout=60)

    def wait_for_other_process(request: SimpleHTTPRequestHandler) -> bool:
        barrier.wait()
        return True

    repository.before_chart = wait_for_other_process
    fetch = (
        f"import pathlib; from devtools import helm_charts; helm_charts.CACHE = pathlib.Path({str(cache)!r}); "
        "print(helm_charts.official_chart())"
    )
    command = [sys.executable, "-c", fetch]
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(
            lambda _: subprocess.run(command, cwd=ROOT / "scripts", capture_output=True, text=True, timeout=100), range(2)
        )
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout == second.stdout and is_complete(first.stdout.strip())
    assert [file.name for file in cache.iterdir()] == [f"airflow-{VERSION}.tgz"]


def truncate(request: SimpleHTTPRequestHandler) -> bool:
    request.send_response(200)
    request.send_header("Content-Length", "100000")
    request.end_headers()
    request.wfile.write(b"\x1f\x8b")
    request.close_connection = True
    return False


def send_login_page(request: SimpleHTTPRequestHandler) -> bool:
    request.send_response(200)
    request.end_headers()
    request.wfile.write(b"<html>Sign in</html>")
    return False


@pytest.mark.parametrize("answer", [truncate, send_login_page])
def test_a_broken_download_leaves_nothing_behind(
    repository: Repository, cache: Path, answer: Callable[[SimpleHTTPRequestHandler], bool]
) -> None:
    repository.before_chart = answer
    with pytest.raises(ToolError, match=f"cannot fetch the Airflow chart {VERSION} from {repository.url}"):
        helm_charts.official_chart()
    assert list(cache.iterdir()) == []
    repository.before_chart = lambda request: True
    assert is_complete(helm_charts.official_chart())


def test_a_repository_that_hangs_times_out(repository: Repository, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    repository.before_chart = lambda request: not done.wait(60)
    monkeypatch.setattr(helm_charts, "FETCH_TIMEOUT_SECONDS", 0.5)
    try:
        with pytest.raises(ToolError, match="timed out after"):
            helm_charts.official_chart()
    finally:
        done.set()
    assert list(cache.iterdir()) == []


def test_an_unreachable_repository_is_one_sentence(helm: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CHART_REPOSITORY", "http://127.0.0.1:1")
    with pytest.raises(ToolError) as raised:
        helm_charts.official_chart()
    message = str(raised.value)
    assert "\n" not in message and message.startswith(f"cannot fetch the Airflow chart {VERSION} from http://127.0.0.1:1")
    assert "connection refused" in message and message.endswith("or AIRFLOW_CHART_REPOSITORY to a mirror")


def test_the_makefile_pins_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHART_VERSION", raising=False)
    assert f"export CHART_VERSION := {helm_charts.chart_version()}\n" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize(
    ("variable", "value", "outcome"),
    [("CI", "true", pytest.fail.Exception), ("REQUIRE_CHART", "1", pytest.fail.Exception), ("CI", "", pytest.skip.Exception)],
)
def test_without_a_chart_tests_are_skipped_or_fail_if_required(
    variable: str, value: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("REQUIRE_CHART", raising=False)
    monkeypatch.setenv(variable, value)
    with pytest.raises(outcome, match="cannot test the rendered charts: no helm, then run make test"):
        skip("no helm")
