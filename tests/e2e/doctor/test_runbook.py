"""The runbook's commands, each as it is written there, on the cluster."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from devtools.commands import ROOT

from ..conftest import CLUSTER, DEPLOYMENT

BLOCK = re.compile(r"^( *)```sh\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def read_commands() -> list[str]:
    """Return the page's code blocks, without the block that selects an environment."""
    page = (ROOT / "docs" / "runbook.md").read_text()
    blocks = [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in BLOCK.findall(page)]
    return [block for block in blocks if not block.startswith("export ")]


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """The variables of this cluster."""
    names = {"ENV": "kind", "NAMESPACE": DEPLOYMENT.namespace, "STEPS": DEPLOYMENT.namespace}
    return os.environ | names | {"CLUSTER": CLUSTER.name, "UI_PORT": CLUSTER.ui_port}


@pytest.fixture(scope="module")
def report(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make doctor` prints, once for all commands that select lines of it."""
    done = subprocess.run(["make", "doctor"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=400)
    path = tmp_path_factory.mktemp("doctor") / "report"
    path.write_text(done.stdout)
    return path


@pytest.mark.parametrize("command", read_commands(), ids=lambda command: command.splitlines()[0][:80])
def test_each_command_of_the_runbook_runs(environment: dict[str, str], report: Path, command: str) -> None:
    # A context of its own: kubectl's current one may be another cluster's.
    functions = (
        f'kubectl() {{ command kubectl --context={DEPLOYMENT.context} "$@"; }}',
        f'make() {{ if [ "$1" = doctor ]; then cat {report}; else command make "$@"; fi; }}',
    )
    script = "\n".join(("set -o errexit -o pipefail", *functions, command))
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    print(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
