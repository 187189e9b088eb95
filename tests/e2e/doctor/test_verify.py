"""`make verify` and `make repair` on the cluster: a price that is truncated in the bucket is found, and made anew in a pod."""

from __future__ import annotations

import os
import subprocess
import sys

from devtools.commands import ROOT
from step_contract.revisions import list_revisions, load_manifest
from step_contract.store import Store

from ..conftest import CLUSTER

# A range that no other test looks at; the cluster's first run has collected it.
DAY = "2022-03-10"
DIRECTORY = f"prices/symbol=KS11/session={DAY}"


def run(*options: str) -> tuple[int, str]:
    """Run the program for the sessions of DAY; return its exit code and its output."""
    names = {"FROM": DAY, "TO": DAY, "CLUSTER": CLUSTER.name, "UI_PORT": CLUSTER.ui_port, "JSON": ""}
    command = [sys.executable, str(ROOT / "scripts" / "verify.py"), "kind", *options]
    done = subprocess.run(
        command, env=os.environ | names, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=400
    )
    print(done.stdout)
    return done.returncode, done.stdout


def test_a_damaged_object_is_found_and_repaired_in_a_pod(bucket: Store) -> None:
    revisions = list_revisions(bucket, DIRECTORY)
    path = revisions[max(revisions)]
    manifest = load_manifest(bucket, path)
    name = f"{path.rpartition('/')[0]}/{manifest.files[0].path}"
    content = bucket.read(name) or b""
    bucket.replace(name, content[:-7])
    try:
        code, output = run()
        assert code == 1 and "is truncated" in output and "1 errors" in output
        code, output = run("--repair")
        assert code == 0 and f"run: collector fetch-prices --session {DAY} --symbol KS11 --remake damaged" in output
        assert "1 of 1 repaired; verifying again" in output
        repaired = load_manifest(bucket, list_revisions(bucket, DIRECTORY)[max(revisions) + 1])
        assert (repaired.reason, repaired.files[0].sha256) == ("damaged", manifest.files[0].sha256)
    finally:
        bucket.replace(name, content)
    assert run()[0] == 0
