"""What tests of several parts need: an S3 server (versitygw where it is on the PATH, else moto's), and a way to run a step."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict
from uuid import uuid4

import pytest
from step_contract.cli import Parser, run_step
from step_contract.manifest import Fact

# How long a case takes says how busy the machine is.
with suppress(ImportError):
    from hypothesis import settings

    settings.register_profile("any-machine", deadline=None)
    settings.load_profile("any-machine")

ROOT = Path(__file__).resolve().parent.parent
KEY = "tests-access-key"
# A model that trains within seconds.
SMALL_CONFIG = """
model = "tcn"
window = 16
horizon = 3
interval = 0.8
channels = 4
epochs = 2
batch_size = 64
learning_rate = 0.01
weight_decay = 0.01
seed = 1
folds = 2
test_share = 0.3
min_sessions = 100
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def s3_variables(endpoint: str) -> dict[str, str]:
    """Return the AWS variables of the S3 server."""
    credentials = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": KEY, "AWS_DEFAULT_REGION": "us-east-1"}
    return {"AWS_ENDPOINT_URL": endpoint} | credentials


def make_bucket(name: str, endpoint: str) -> None:
    import fsspec

    client = {"endpoint_url": endpoint, "config_kwargs": {"s3": {"addressing_style": "path"}}}
    fsspec.filesystem("s3", key=KEY, secret=KEY, skip_instance_cache=True, **client).mkdir(name)


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    environment = os.environ | {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": KEY}
    if gateway := shutil.which("versitygw"):
        command = [gateway, "--port", f"127.0.0.1:{port}", "posix", str(tmp_path_factory.mktemp("s3"))]
    else:
        command = [str(ROOT / ".venvs" / "tools" / "bin" / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, f"{command[0]} does not come up"
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
        server.terminate()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of an empty bucket; the AWS variables are set for this process and its children."""
    for name, value in s3_variables(s3_endpoint).items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid4().hex[:12]}"
    make_bucket(bucket, s3_endpoint)
    return f"s3://{bucket}/market"


@pytest.fixture(params=["file", "s3"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty root for artifacts: a folder, then a bucket."""
    return str(request.getfixturevalue("s3")) if request.param == "s3" else f"file://{tmp_path}/artifacts"


class StepResult(TypedDict):
    """The JSON of `step_contract.result.Result`."""

    manifest: str | None
    facts: dict[str, Fact]
    error: str | None


Run = Callable[..., tuple[int, str, StepResult]]


@pytest.fixture
def run_program(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Callable[[Callable[[], Parser]], Run]:
    """Return a function that makes a step runner of a program's parser; it returns exit code, output and result."""
    for name in ("SESSION", "SYMBOL", "PRICES_URL", "FEEDS", "OVERRIDES", "HISTORY_YEARS", "MODEL_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ARTIFACTS", f"file://{tmp_path}/artifacts")
    monkeypatch.setenv("STEP_RESULT", str(tmp_path / "result.json"))
    caplog.set_level("INFO")

    def program(build_parser: Callable[[], Parser]) -> Run:
        def step(*arguments: str) -> tuple[int, str, StepResult]:
            (tmp_path / "result.json").unlink(missing_ok=True)
            caplog.clear()
            code = run_step(build_parser, arguments)
            printed = capsys.readouterr()
            return code, printed.out + printed.err + caplog.text, json.loads((tmp_path / "result.json").read_bytes())

        return step

    return program


def describe_artifacts(root: Path) -> dict[str, dict[str, Any]]:
    """Return what every artifact below `root` states, by its path: the files' digests, and the manifest without its times.

    What differs between two ways to make the same is left out: when it was committed, by which attempt, and the digests of
    other manifests, which contain both.
    """
    described: dict[str, dict[str, Any]] = {}
    for path in sorted(root.rglob("manifest.json")):
        manifest = json.loads(path.read_text())
        files = {file["path"].partition("/")[2]: file["sha256"] for file in manifest["files"]}
        facts = {name: value for name, value in manifest["facts"].items() if name != "peak_memory_mib"}  # of the process
        sources = [source for source in manifest.get("sources", []) if "uri" in source]
        described[str(path.parent.relative_to(root))] = {
            "files": {name: digest for name, digest in files.items() if not name.endswith(".sha256")},
            "facts": facts,
            "sources": [(source["role"], source["uri"].replace(str(root), "")) for source in sources],
            **{name: manifest[name] for name in ("step", "session", "inputs", "rows", "schema_version")},
        }
    return described
