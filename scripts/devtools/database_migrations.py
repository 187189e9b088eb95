"""Whether a release can be rolled back: the database must not have migrations that the older Airflow does not know.

An Airflow that finds another revision than its own waits for a migration that never comes, so its pods never become ready.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from devtools.commands import ToolError
from devtools.deployment import Deployment

# In the order in which their pods are asked. The DAG processor serves nobody, so it can run a downgrade.
COMPONENTS = ("dag-processor", "scheduler", "triggerer", "api-server")
MAX_PODS = 4
PROBE_TIMEOUT_SECONDS = 20
# Runs in a pod of Airflow. It reads the map of versions and revisions from the source: importing it takes seconds of CPU.
PROBE = """
import ast, importlib.util, json, os, pathlib
import sqlalchemy

os.environ.setdefault("PGCONNECT_TIMEOUT", "5")
package = pathlib.Path(importlib.util.find_spec("airflow").origin).parent
nodes = ast.parse((package / "utils" / "db.py").read_text()).body
[heads] = [
    ast.literal_eval(node.value)
    for node in nodes
    if isinstance(node, (ast.Assign, ast.AnnAssign)) and "_REVISION_HEADS_MAP" in ast.unparse(node).split("=")[0]
]
with sqlalchemy.create_engine(os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]).connect() as connection:
    revision = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version")).scalar()
print(json.dumps({"revision": revision, "heads": heads}))
"""


@dataclass(frozen=True)
class DatabaseState:
    """The revision of Airflow's metadata database.

    Attributes:
        pod: the pod that read it.
        revision: the database's Alembic revision.
        heads: the revision of each version of Airflow that has migrations, in their order, as the pod's Airflow knows them.
    """

    pod: str
    revision: str
    heads: Mapping[str, str]

    @property
    def version(self) -> str:
        """The first version of Airflow with this revision; empty if the pod's Airflow does not know it."""
        return next((version for version, head in self.heads.items() if head == self.revision), "")


def find_head(version: str, heads: Mapping[str, str]) -> str | None:
    """Return the revision of the last version in `heads` that is not newer than `version`; None if all are newer."""
    candidates = [head for known, head in heads.items() if _parse_version(known) <= _parse_version(version)]
    return candidates[-1] if candidates else None


def _parse_version(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3])


def is_supported(state: DatabaseState, version: str) -> bool:
    """Return whether Airflow `version` can run on the database, if need be after its own migration."""
    revisions, head = list(state.heads.values()), find_head(version, state.heads)
    if state.revision not in revisions or head is None:
        return False
    return revisions.index(state.revision) <= revisions.index(head)


def read_state(kubectl: Callable[..., str]) -> DatabaseState | None:
    """Return the database's state from a running pod, if possible one that knows the revision; None if no pod responds."""
    pods = json.loads(kubectl("get", "pods", "--selector=tier=airflow", "--output=json"))["items"]
    running = [pod for pod in pods if _is_running(pod)]
    running.sort(key=lambda pod: COMPONENTS.index(pod["metadata"]["labels"]["component"]))
    state = None
    for pod in running[:MAX_PODS]:
        name, component = pod["metadata"]["name"], pod["metadata"]["labels"]["component"]
        try:
            output = kubectl(
                "exec", name, f"--container={component}", "--", "python", "-c", PROBE, timeout=PROBE_TIMEOUT_SECONDS
            )
            state = DatabaseState(name, **json.loads(output))
        except (ToolError, ValueError):
            continue
        if state.version:
            return state
    return state


def _is_running(pod: Mapping[str, Any]) -> bool:
    component = pod["metadata"]["labels"]["component"]
    containers = pod["status"].get("containerStatuses", [])
    return component in COMPONENTS and any(
        container["name"] == component and "running" in container["state"] for container in containers
    )


def check_rollback(deployment: Deployment, revision: int) -> None:
    """Raise ToolError if Airflow's release cannot be rolled back to `revision`, with what to do instead."""
    version, state = deployment.read_airflow_version(revision), read_state(deployment.kubectl)
    if state is None:
        last_revision = int(deployment.read_history("airflow")[-1]["revision"])
        if deployment.read_airflow_version(last_revision) == version:
            return
        raise ToolError(
            f"cannot verify that Airflow {version} supports the database, as no pod of Airflow responds. Read the "
            f"database's table alembic_version; if it holds the revision of {version} in airflow/utils/db.py "
            f"(_REVISION_HEADS_MAP), run helm rollback airflow {revision}"
        )
    if not is_supported(state, version):
        raise ToolError(explain_refusal(deployment, state, version, revision))


def explain_refusal(deployment: Deployment, state: DatabaseState, version: str, revision: int) -> str:
    """Return why the release cannot be rolled back to `revision`, with Airflow `version`, and what to do in which order."""
    head = find_head(version, state.heads)
    owner = f"of Airflow {state.version}" if state.version else f"that the Airflow in pod {state.pod} does not know"
    message = (
        f"cannot roll back to Airflow {version}: the database was migrated to revision {state.revision} {owner}, and Airflow "
        f"{version} supports {f'revision {head}' if head else 'an earlier one'}. No release was changed. Correct the cause and "
        "run make deploy again, or "
    )
    rollback = f"make rollback ENV={deployment.environment} REVISION={revision}"
    if not state.version:
        return f"{message}restore a backup of the database, as no running pod has the Airflow that migrated it, then {rollback}"
    component = next(name for name in COMPONENTS if f"-{name}-" in state.pod)
    others = sorted(f"airflow-{name}" for name in COMPONENTS if name != component)
    scale = deployment.kubectl_command("scale", "deployment", *others, "--replicas=0")
    downgrade = ["airflow", "db", "downgrade", "--to-version", version, "--yes"]
    execute = deployment.kubectl_command("exec", state.pod, f"--container={component}", "--", *downgrade)
    steps = ("back up the database", shlex.join(scale), shlex.join(execute), rollback)
    lines = "\n".join(f"  {number}. {step}" for number, step in enumerate(steps, start=1))
    return f"{message}downgrade the database, in this order:\n{lines}"
