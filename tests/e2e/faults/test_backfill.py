"""`make backfill` on the cluster: its first half is killed, and the same command finishes it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

from devtools.commands import ROOT
from step_contract import paths
from step_contract.store import Store

from ..conftest import CLUSTER, STEP_SELECTOR, kubectl, list_running_pods, wait_until
from ..slack_channel import get_messages, to_json

FIRST, LAST = "2017-01-02", "2017-02-28"
SESSIONS, DAYS = 40, 58  # of the exchange, and of the calendar from FIRST on
SELECTOR = f"{STEP_SELECTOR},dag_id=market_history"


def start_backfill() -> subprocess.Popen[str]:
    names = {"FROM": FIRST, "TO": LAST, "CLUSTER": CLUSTER.name, "UI_PORT": CLUSTER.ui_port}
    command = [sys.executable, str(ROOT / "scripts" / "backfill.py"), "kind"]
    return subprocess.Popen(command, env=os.environ | names, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def list_made(bucket: Store, kind: str) -> list[paths.ArtifactPath]:
    """Return the artifacts of this kind in January and February 2017."""
    found = [paths.parse_artifact_path(name) for name in bucket.list(kind)]
    return [artifact for artifact in found if artifact and FIRST <= artifact.session.isoformat() <= LAST]


def test_a_backfill_whose_half_is_killed_is_finished_by_the_same_command(bucket: Store) -> None:
    first = start_backfill()
    wait_until("a pod of the backfill", lambda: list_running_pods(SELECTOR), 90)
    first.kill()
    first.communicate(timeout=60)
    kubectl("delete", "pod", f"--selector={SELECTOR}", "--force", "--grace-period=0")
    kubectl("delete", "pod", "--selector=component=triggerer", "--force", "--grace-period=0")
    second = start_backfill()
    output = second.communicate(timeout=900)[0]
    print(output)
    assert second.returncode == 0 and "is active; following it" in output and "2 of 2 months succeeded" in output
    expected = {"prices": SESSIONS, "headlines": SESSIONS, "decisions": DAYS}
    for kind, count in expected.items():
        made = Counter((artifact.session, artifact.symbol) for artifact in list_made(bucket, kind))
        assert (len(made), set(made.values())) == (count, {1}), kind
    assert len(list_made(bucket, "forecasts")) == SESSIONS - 20  # a forecast needs 21 sessions, its own included
    about = [message for message in get_messages() if "Backfill of market_history, Sun 1 Jan 2017" in to_json(message)]
    assert len(about) == 1 and "2 of 2 succeeded" in to_json(about[0])
