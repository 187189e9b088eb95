"""What the pods of Airflow and the monitor report by kubectl exec: airflow_steps.doctor, and the monitor's slack-scopes."""

from __future__ import annotations

import json
import re
import secrets as random_bytes
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from devtools import database_migrations
from devtools.commands import ToolError
from step_contract.checks.clocks import compare_clocks
from step_contract.checks.findings import Finding, error, ok, warning

from checks import report, secrets
from checks.cluster import Cluster, Object

EXEC_TIMEOUT_SECONDS = 75
PROGRAM = ["python", "-m", "airflow_steps.doctor"]
SLACK_PROGRAM = ["python", "-m", "airflow_monitor", "slack-scopes"]
WORKERS = 4  # each starts a Python, some import Airflow
NO_MODULE = re.compile(r"No module named '?(airflow_steps\.doctor|step_contract\.findings)")
LONG_AGO = datetime.min.replace(tzinfo=UTC)
# The bucket's key where the secrets may not be read.
BUCKET_KEYS = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}


@dataclass(frozen=True)
class PodReport:
    """What one pod reported.

    Attributes:
        component: the component, such as scheduler.
        findings: about the bucket, the database, Slack; or why the pod did not report.
        content: the report; empty if there is none.
        started: when it was asked, by this machine's clock, as was `finished`.
        digests: of each secret's value that the pod has.
    """

    component: str
    findings: list[Finding]
    content: Mapping[str, Any] = field(default_factory=dict)
    started: datetime = LONG_AGO
    finished: datetime = LONG_AGO
    digests: Mapping[secrets.Reference, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Reports:
    """The reports of all pods.

    Attributes:
        pods: by the pod's name.
        salt: the key of the digests.
        secrets: the current values of the secrets that the pods use, if they may be read.
    """

    pods: Mapping[str, PodReport]
    salt: str
    secrets: Mapping[str, Mapping[str, str]]

    @property
    def step_pods(self) -> dict[str, Object]:
        """The pod of each program's command check."""
        return next((dict(pod.content["pods"]) for pod in self.pods.values() if pod.content.get("pods")), {})


def collect(cluster: Cluster) -> Reports:
    """Ask every running pod of Airflow and the monitor; one of them also about the database, another for the steps' pods."""
    pods, salt = cluster.airflow_pods, random_bytes.token_hex(16)
    names = {name for name, _ in secrets.RULES} | {"airflow-pooled"}
    known = secrets.read_readable(cluster, names)
    sections: dict[str, list[str]] = {name: ["bucket"] for name in pods}
    # The scheduler has the database; the DAG processor serves nobody and builds the steps' pods when it parses.
    for section, order in (
        ("database", ("scheduler", *database_migrations.COMPONENTS)),
        ("pods", database_migrations.COMPONENTS),
    ):
        chosen = min((name for name in pods if pods[name][0] in order), key=lambda name: order.index(pods[name][0]), default="")
        if chosen:
            sections[chosen].append(section)

    def ask(name: str) -> PodReport:
        component, pod = pods[name]
        return ask_pod(cluster, name, component, pod, sections[name], salt, {"bucket": BUCKET_KEYS} | known)

    with ThreadPoolExecutor(WORKERS) as pool:
        reports = dict(zip(pods, pool.map(ask, pods), strict=True))
    return Reports(reports, salt, known)


def ask_pod(
    cluster: Cluster,
    name: str,
    component: str,
    pod: Object,
    sections: list[str],
    salt: str,
    keys: Mapping[str, Mapping[str, str]],
) -> PodReport:
    """Run airflow_steps.doctor in the pod, and in the monitor's also slack-scopes; return what it reported."""
    references = secrets.list_references(pod, component, keys)
    command = [*PROGRAM, "--salt", salt, "--variables", ",".join(references), *sections]
    started = datetime.now(UTC)
    try:
        output = execute(cluster, name, component, command)
        finished = datetime.now(UTC)
        content = json.loads(output.strip().splitlines()[-1])
        findings = [Finding.parse(json.dumps(finding)) for finding in content["findings"]]
        digests = {reference: content["digests"].get(variable) for variable, reference in references.items()}
    except ToolError as problem:
        if NO_MODULE.search(str(problem)):
            advice = "deploy this version; until then, only what needs nothing inside the pods is checked"
            return PodReport(component, [error("inside", "its image is older and cannot check itself", advice, component)])
        return PodReport(component, [replace(report.explain_tool_error("inside", problem), where=component)])
    except (ValueError, LookupError, TypeError, AttributeError):
        return PodReport(
            component, [error("inside", "its answer is no report", f"run by hand: {' '.join(PROGRAM)} --salt 0", component)]
        )
    found = [replace(finding, where=finding.where or component) for finding in findings if finding]
    if component == "monitor":
        found += ask_slack(cluster, name)
    return PodReport(component, found, content, started, finished, digests)


def execute(cluster: Cluster, pod: str, container: str, command: list[str]) -> str:
    """Return the output of a command in a container. Raises ToolError."""
    arguments = ("exec", pod, f"--container={container}", "--", *command)
    return cluster.deployment.kubectl(*arguments, timeout=EXEC_TIMEOUT_SECONDS)


def ask_slack(cluster: Cluster, pod: str) -> list[Finding]:
    """Return what the monitor finds about its connection to Slack."""
    try:
        output = execute(cluster, pod, "monitor", SLACK_PROGRAM)
    except ToolError as problem:
        return [replace(report.explain_tool_error("slack", problem))]
    findings = [finding for line in output.splitlines() if (finding := Finding.parse(line))]
    return findings or [error("slack", "the monitor printed nothing", f"run it by hand: {' '.join(SLACK_PROGRAM)}")]


def check_reports(reports: Reports) -> Iterator[Finding]:
    """Yield what the pods found, their clocks, and whether they have the current secrets."""
    if not reports.pods:
        yield error(
            "inside", "no pod of Airflow runs", "see the lines about components; make kind-status prints events and logs"
        )
        return
    yield from merge(finding for pod in reports.pods.values() for finding in pod.findings)
    for name, pod in reports.pods.items():
        if pod.content:
            time_there = datetime.fromtimestamp(pod.content["time"], UTC)
            finding = compare_clocks(f"the node of {name}", time_there, pod.started, pod.finished)
            if finding.status != "ok":
                yield replace(finding, where=pod.component)
    if digests := {name: pod.digests for name, pod in reports.pods.items() if pod.content}:
        yield from secrets.compare(digests, reports.secrets, reports.salt)


def merge(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield the findings, those that are the same in several places as one."""
    places: dict[Finding, list[str]] = {}
    for finding in findings:
        places.setdefault(replace(finding, where=""), []).append(finding.where)
    for finding, names in places.items():
        yield replace(finding, where=", ".join(dict.fromkeys(name for name in names if name)))


def check_versions(cluster: Cluster, reports: Reports) -> Iterator[Finding]:
    """Yield whether the pods' Airflow is the version that the values say."""
    expected = cluster.values["airflowVersion"]
    versions = {pod.content["airflow_version"] for pod in reports.pods.values() if pod.content}
    if wrong := sorted(versions - {expected}):
        advice = "set airflowVersion to the image's version, as make deploy does, or deploy the image that fits"
        yield error("versions", f"the pods have Airflow {', '.join(wrong)}, the values say {expected}", advice)
    elif versions:
        yield ok("versions", f"Airflow {expected} in all pods")


def check_migrations(cluster: Cluster, reports: Reports) -> Iterator[Finding]:
    """Yield whether the database's revision is the one that the image expects."""
    reported = [pod.content["airflow_version"] for pod in reports.pods.values() if pod.content.get("airflow_version")]
    versions = [*reported, cluster.values["airflowVersion"]]
    state = database_migrations.read_state(cluster.deployment.kubectl)
    environment = cluster.deployment.environment
    deploy = "make kind-up" if environment == "kind" else f"make deploy ENV={environment}"
    if state is None:
        message = "no pod could read the database's revision"
        yield error("migrations", message, "see the lines about the database and the components")
        return
    head = database_migrations.find_head(versions[0], state.heads)
    if state.revision == head:
        yield ok("migrations", f"the database has the revision of Airflow {versions[0]}, {head}")
    elif not state.version:
        advice = f"deploy the Airflow that migrated it, or restore a backup; then {deploy}"
        yield error(
            "migrations", f"the database has revision {state.revision}, which Airflow {versions[0]} does not know", advice
        )
    else:
        advice = f"{deploy} migrates it; the log of the job airflow-run-airflow-migrations says why it was not"
        message = f"the database has revision {state.revision} of Airflow {state.version}; Airflow {versions[0]} expects {head}"
        yield error("migrations", message, advice)


def check_commits(commits: Mapping[str, str]) -> Iterator[Finding]:
    """Yield whether all images were built from one commit.

    Args:
        commits: the commit of each component or program.
    """
    groups: dict[str, list[str]] = {}
    for name, commit in sorted(commits.items()):
        groups.setdefault(commit or "unknown", []).append(name)
    described = "; ".join(f"{commit}: {', '.join(names)}" for commit, names in groups.items())
    if len(groups) > 1:
        advice = "build and deploy all images together: what a step writes and what Airflow expects may differ"
        yield warning("image-commits", f"the images were built from different commits: {described}", advice)
    elif groups:
        yield ok("image-commits", f"all images were built from {next(iter(groups))}")
