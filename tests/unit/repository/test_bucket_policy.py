"""The bucket's policy for the steps' key, evaluated on the paths of the contract."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from devtools.bucket_policy import make_policy, render
from devtools.commands import ToolError
from step_contract import paths
from step_contract.errors import StepError
from step_contract.store import Store

ROOT, LOGS = "s3://market/artifacts", "s3://market/logs"
DAY = date(2026, 1, 15)
WRITTEN = (
    paths.decision("KS11", DAY, "open"),
    paths.revision(paths.prices("KS11", DAY), 2),
    paths.headlines(DAY, "0123"),
    paths.model("KS11", DAY, "0123"),
    paths.model("KS11", DAY, "0123", pinned=True),
    paths.promotions("KS11"),
    paths.forecast("KS11", DAY),
    paths.plot("KS11", DAY, "0123"),
    paths.checkpoints("KS11", DAY, "0123", "4567"),
)
SMOKE = "smoke/smoke__0123__20260115T000000"
OF_AIRFLOW = (
    paths.failures("market_daily", "run"),
    paths.termination("market_daily", "run", "train", -1, 1),
    paths.channel_deliveries("workflows"),
    paths.MONITOR_HEARTBEAT,
)


def is_allowed(policy: dict[str, Any], action: str, key: str) -> bool:
    """Evaluate the policy for an object as S3 does: a denial takes precedence, and the default is denial."""
    effects = {
        statement["Effect"]
        for statement in policy["Statement"]
        if any(fnmatchcase(f"s3:{action}", pattern) for pattern in statement["Action"])
        and any(fnmatchcase(f"arn:aws:s3:::market/{key}", pattern) for pattern in statement["Resource"])
    }
    return effects == {"Allow"}


@pytest.fixture(scope="module")
def policy() -> dict[str, Any]:
    return make_policy(ROOT, LOGS, "steps")


@pytest.mark.parametrize("prefix", ["", f"{SMOKE}/"])
def test_steps_read_and_write_where_the_contract_has_their_paths(policy: dict[str, Any], prefix: str) -> None:
    for path in (*WRITTEN, paths.current_model("KS11")):
        for action in ("GetObject", "PutObject"):
            assert is_allowed(policy, action, f"artifacts/{prefix}{path}/manifest.json"), path


def test_steps_delete_checkpoints_and_attempts_and_no_manifest(policy: dict[str, Any]) -> None:
    def list_deletable(name: str) -> list[str]:
        return [path for path in (*WRITTEN, *OF_AIRFLOW) if is_allowed(policy, "DeleteObject", f"artifacts/{path}/{name}")]

    checkpoints = paths.checkpoints("KS11", DAY, "0123", "4567")
    assert list_deletable(paths.MANIFEST) == [checkpoints]
    assert list_deletable("attempt=0123456789ab/prices.parquet") == list(WRITTEN)
    assert is_allowed(policy, "DeleteObject", f"artifacts/{SMOKE}/{checkpoints}/file")


@pytest.mark.parametrize("action", ["GetObject", "PutObject", "DeleteObject", "PutObjectAcl"])
def test_steps_access_neither_logs_nor_the_monitors_objects(policy: dict[str, Any], action: str) -> None:
    for key in (*(f"artifacts/{path}" for path in OF_AIRFLOW), "logs/dag_id=market_daily/attempt=1.log", "other/file"):
        assert not is_allowed(policy, action, key), key


def test_no_statement_applies_to_another_principal(policy: dict[str, Any]) -> None:
    assert {json.dumps(statement["Principal"]) for statement in policy["Statement"]} == {'{"AWS": "steps"}'}


def test_the_policy_has_the_bucket_of_the_rendered_manifests() -> None:
    manifests = "    artifacts = s3://market-daily/daily/artifacts\n    remote_base_log_folder = s3://other/logs\n"
    text = render(manifests)
    assert "arn:aws:s3:::market-daily/daily/artifacts/prices/*" in text and "arn:aws:iam::ACCOUNT:user/STEPS" in text
    assert "logs" not in json.dumps(
        json.loads(text)["Statement"][-1]["Resource"]
    )  # another bucket, to which nothing is allowed
    with pytest.raises(ToolError, match="not in a bucket"):
        render("    artifacts = file:///artifacts\n")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], dict[str, str]]]:
    """An S3 server with the policy; returns a client's environment. Skipped without versitygw: moto's server has no users."""
    if not (program := shutil.which("versitygw")):
        pytest.skip("versitygw is not on the PATH")
    data, users = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("users")
    (data / "market").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    root = {"ROOT_ACCESS_KEY": "root-key", "ROOT_SECRET_KEY": "root-key", "PATH": os.environ["PATH"]}
    command = [program, "--port", address, "--iam-dir", str(users), "posix", str(data)]
    with subprocess.Popen(command, env=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _configure(program, address)
            yield lambda key: {
                "AWS_ENDPOINT_URL": f"http://{address}",
                "AWS_ACCESS_KEY_ID": key,
                "AWS_SECRET_ACCESS_KEY": key,
                "AWS_DEFAULT_REGION": "us-east-1",
            }
        finally:
            server.terminate()


def _configure(program: str, address: str) -> None:
    """Create the steps' key and put the bucket's policy, once the server accepts connections."""
    from botocore.config import Config
    from botocore.session import get_session

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", int(address.partition(":")[2])), timeout=1):
            break
        time.sleep(0.05)
    admin = [program, "admin", "--access", "root-key", "--secret", "root-key", "--endpoint-url", f"http://{address}"]
    user = ["create-user", "--access", "steps-key", "--secret", "steps-key", "--role", "user"]
    subprocess.run([*admin, *user], check=True, capture_output=True, timeout=30)
    keys = {"aws_access_key_id": "root-key", "aws_secret_access_key": "root-key"}
    client = get_session().create_client(
        "s3",
        endpoint_url=f"http://{address}",
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
        **keys,
    )
    client.put_bucket_policy(Bucket="market", Policy=json.dumps(make_policy(ROOT, LOGS, "steps-key")))


def test_a_server_enforces_the_policy(
    gateway: Callable[[str], dict[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def open_store(key: str, root: str = ROOT) -> Store:
        for name, value in gateway(key).items():
            monkeypatch.setenv(name, value)
        store = Store(root)
        store._fs.clear_instance_cache()
        return Store(root)

    open_store("root-key").write(paths.MONITOR_HEARTBEAT, b"{}")
    open_store("root-key", LOGS).write("attempt=1.log", b"log")
    steps = open_store("steps-key")
    for path in WRITTEN:
        assert steps.create(f"{path}/manifest.json", b"{}") and not steps.create(f"{path}/manifest.json", b"{}")
        assert steps.read(f"{path}/manifest.json") == b"{}" and steps.read(f"{path}/missing") is None
    steps.replace(paths.current_model("KS11"), b"{}")
    assert len(steps.list("prices")) == 1
    steps.remove_folder(WRITTEN[-1])
    steps.write(f"{WRITTEN[0]}/attempt=0123456789ab/file", b"")
    steps.remove_folder(f"{WRITTEN[0]}/attempt=0123456789ab")
    assert steps.list(WRITTEN[-1]) == [] and steps.list(WRITTEN[0]) == [f"{WRITTEN[0]}/manifest.json"]
    refusals: tuple[Callable[[], object], ...] = (
        lambda: steps.replace(paths.MONITOR_HEARTBEAT, b"forged"),
        lambda: steps.read(paths.MONITOR_HEARTBEAT),
        lambda: steps.write("elsewhere/file", b"{}"),
        lambda: open_store("steps-key", LOGS).replace("attempt=1.log", b"forged"),
        lambda: open_store("steps-key", LOGS).read("attempt=1.log"),
    )
    for refused in refusals:
        with pytest.raises(StepError, match="cannot"):
            refused()
    assert open_store("root-key", LOGS).read("attempt=1.log") == b"log"
