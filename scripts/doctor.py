"""Check this machine, and with an environment a cluster and what is deployed there; say what to do next.

    python scripts/doctor.py                   # what make run needs
    python scripts/doctor.py staging           # also the environment staging
    python scripts/doctor.py staging --json

Each line is ok, warning or error; docs/doctor.md explains each. The exit code is 1 if there is an error, with STRICT=1 also if
there is a warning, otherwise 0. CONTEXT, NAMESPACE, CLUSTER, JSON, STRICT: see docs/settings.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial

from checks import cluster as clusters
from checks import components, images, laptop, resources, secrets, step_pods
from checks.report import Check, Report, format_finding, run_checks
from deploy import find_deployment
from devtools import helm_charts
from devtools.commands import ToolError, print_error
from step_contract.checks.findings import Finding, Status, error

COMMIT = "commit"  # a finding whose message is the commit of a program's image


def list_machine_checks() -> dict[str, Check]:
    """Return the checks of what make run needs."""
    return {
        "programs": partial(laptop.check_programs, laptop.FOR_RUN),
        "python": laptop.check_python,
        "environments": laptop.check_environments,
        "disk": laptop.check_disk,
        "slack-token": laptop.check_slack_token,
        **{f"run-{program}": partial(laptop.run_program, program) for program in laptop.list_programs()},
    }


def list_cluster_checks(cluster: clusters.Cluster) -> dict[str, Check]:
    """Return the checks of a deployment from outside its pods."""
    checks: dict[str, Callable[[clusters.Cluster], Iterable[Finding]]] = {
        "components": resources.check_components,
        "nodes": resources.check_nodes,
        "clock": resources.check_node_clocks,
        "quota": resources.check_quotas,
        "volumes": resources.check_volumes,
        "images": images.check_images,
        "image-architectures": images.check_architectures,
        "secrets": secrets.check_secrets,
    }
    return {name: partial(check, cluster) for name, check in checks.items()}


def check_inside(cluster: clusters.Cluster) -> Iterator[Finding]:
    """Yield what the pods report, and then what pods like a step's find: the DAG processor builds these."""
    reports = components.collect(cluster)
    commits = {pod.component: pod.content["commit"] for pod in reports.pods.values() if pod.content}
    checks: dict[str, Check] = {
        "inside": partial(components.check_reports, reports),
        "versions": partial(components.check_versions, cluster, reports),
        "migrations": partial(components.check_migrations, cluster, reports),
    }
    if reports.step_pods:
        checks["step-pod"] = partial(step_pods.delete_leftovers, cluster.in_steps_namespace, time.time())
    for program, pod in reports.step_pods.items():
        checks[f"step-pod-{program}"] = partial(step_pods.check_program, cluster, pod, program)
    for finding in run_checks(checks):
        if finding.check == COMMIT:
            commits[finding.where] = finding.message
        else:
            yield finding
    yield from components.check_commits(commits)


def check_environment(environment: str) -> Iterator[Finding | str]:
    """Yield the findings about an environment; a text names checks that were not run because of an error before them."""
    programs = laptop.FOR_KIND if environment == "kind" else laptop.FOR_CLUSTER
    machine: dict[str, Check] = {"programs": partial(laptop.check_programs, programs), "python": laptop.check_python}
    blocked = yield from _forward(run_checks(machine))
    skipped = "cluster, permissions, releases, components, nodes, quota, volumes, images, secrets, inside, step-pod"
    if blocked & {"kubectl", "helm"}:
        yield skipped
        return
    try:
        deployment = find_deployment(environment)
        if environment not in helm_charts.list_environments():
            raise ToolError(
                f"helm/values-{environment}.yaml does not exist: ENV is one of {', '.join(helm_charts.list_environments())}"
            )
    except ToolError as problem:
        yield error("cluster", str(problem).splitlines()[-1], "set ENV, and CONTEXT to one of kubectl config get-contexts")
        yield skipped.removeprefix("cluster, ")
        return
    cluster = clusters.Cluster(deployment)
    if (yield from _forward(run_checks({"cluster": partial(clusters.check_reachable, deployment)}))):
        yield skipped.removeprefix("cluster, ")
        return
    permissions = partial(resources.check_permissions, cluster, guess_steps_namespace(cluster))
    first: dict[str, Check] = {"releases": partial(clusters.check_deployed, cluster), "permissions": permissions}
    failed = yield from _forward(run_checks(first))
    if failed & set(helm_charts.RELEASES) and not cluster_is_deployed(cluster):
        yield "components, nodes, quota, volumes, images, secrets, inside, step-pod"
        return
    checks = list_cluster_checks(cluster) | {"inside": partial(check_inside, cluster)}
    yield from run_checks(checks)


def guess_steps_namespace(cluster: clusters.Cluster) -> str:
    """Return the steps' namespace, or Airflow's if nothing is deployed."""
    try:
        return cluster.steps.namespace
    except ToolError:
        return cluster.deployment.namespace


def cluster_is_deployed(cluster: clusters.Cluster) -> bool:
    """Return whether both releases have a deployed revision, though the last may have failed."""
    try:
        return len(cluster.deployment.current_revisions()) == len(helm_charts.RELEASES)
    except ToolError:
        return False


def _forward(findings: Iterable[Finding]) -> Generator[Finding, None, set[str]]:
    """Yield the findings; return the places of those that are errors, or their checks."""
    failed = set[str]()
    for finding in findings:
        yield finding
        if finding.status is Status.ERROR:
            failed.add(finding.where or finding.check)
    return failed


def main(arguments: list[str]) -> int:
    """Run the checks and print the report; return the exit code."""
    parser = argparse.ArgumentParser(prog="doctor.py", description="Check this machine, and the deployment of an environment.")
    parser.add_argument("environment", nargs="?", default="", help="helm/values-ENVIRONMENT.yaml; none: only this machine")
    parser.add_argument("--json", action="store_true", default=bool(os.environ.get("JSON")), help="print the report as JSON")
    options = parser.parse_args(arguments)
    started, findings, skipped = time.monotonic(), list[Finding](), list[str]()
    color = sys.stdout.isatty() and not options.json
    source = check_environment(options.environment) if options.environment else run_checks(list_machine_checks())
    try:
        for finding in source:
            if isinstance(finding, str):
                skipped += finding.split(", ")
                continue
            findings.append(finding)
            if not options.json:
                print(format_finding(finding, color=color), flush=True)
    except ToolError as problem:
        return print_error(problem)
    except KeyboardInterrupt:
        return 130
    report = Report(options.environment or "this machine", findings, skipped, time.monotonic() - started)
    if options.json:
        print(report.to_json())
    else:
        print(f"\n{report.summarize()}")
        if not options.environment:
            print("For a cluster: make doctor ENV=kind, staging or prod.")
    return report.exit_code(strict=bool(os.environ.get("STRICT")))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
