"""Deploy to staging or production, with a preview, a smoke test and a rollback.

    python scripts/deploy.py render staging      # print the manifests; needs no cluster
    python scripts/deploy.py diff staging        # show what a deployment would change
    python scripts/deploy.py deploy staging      # show the changes, ask, upgrade, run the smoke test; roll back on failure
    python scripts/deploy.py rollback staging    # roll back to the previous revision, or to REVISION
    python scripts/deploy.py ui staging          # forward a port to the UI
    python scripts/deploy.py bucket-policy staging   # print a bucket policy that restricts the steps' key; needs no cluster

CONTEXT, NAMESPACE, VALUES, YES, REVISION, UI_PORT, DEPLOY_SECONDS, PRINCIPAL: see docs/settings.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from typing import NoReturn

from devtools import bucket_policy, container_images, database_migrations, helm_charts, helm_revisions
from devtools.commands import ToolError, print_error, require_programs, run
from devtools.dag_runs import run_smoke_test
from devtools.deployment import UPGRADE_TIMEOUT_SECONDS, Deployment
from devtools.kind_cluster import KindCluster
from devtools.manifest_diff import diff_manifests

NO_CHANGES = "no changes"


def read_int(name: str) -> int | None:
    """Return the number that the environment variable `name` holds; None if it is unset. Raises ToolError if it is invalid."""
    text = os.environ.get(name)
    if text and not text.isdecimal():
        raise ToolError(f"invalid {name} {text!r}: must be a whole number")
    return int(text) if text else None


def find_deployment(environment: str) -> Deployment:
    """Return the environment's deployment, in CONTEXT or kubectl's current context. Raises ToolError if there is none."""
    if environment == "kind":
        kind = KindCluster.from_environment().deployment
        context, namespace = kind.context, kind.namespace
    else:
        context, namespace = "", f"market-daily-{environment}"
    context = os.environ.get("CONTEXT") or context or run(["kubectl", "config", "current-context"], timeout=30).strip()
    timeout = read_int("DEPLOY_SECONDS") or UPGRADE_TIMEOUT_SECONDS
    return Deployment(context, os.environ.get("NAMESPACE") or namespace, environment, timeout)


def describe(deployment: Deployment) -> str:
    """Return one line: the deployed commit, chart and images."""
    names = ", ".join(container_images.name_of(image) for image in container_images.IMAGES)
    [chart] = [revision["chart"] for revision in deployment.read_history("airflow")[-1:]]
    return f"{deployment}: commit {container_images.get_commit()}, chart {chart}, images {names}"


def confirm(question: str) -> bool:
    """Return whether the user confirms; with YES=1, nobody is asked. Raises ToolError without a terminal."""
    if os.environ.get("YES") == "1":
        return True
    if not sys.stdin.isatty():
        raise ToolError(f"{question} Confirmation is required and standard input is not a terminal: set YES=1 to confirm")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def deploy(deployment: Deployment) -> None:
    """Show the changes, ask, upgrade and run the smoke test.

    Raises:
        ToolError: the user declined, or the upgrade or the smoke test failed; then see `recover`.
    """
    previous, manifests = deployment.current_revisions(), deployment.render()
    changes = diff_manifests(deployment.read_manifests(), manifests)
    print(changes or NO_CHANGES)
    if changes and not confirm(f"Deploy these changes to {deployment}?"):
        raise ToolError("deployment cancelled")
    if deployment.is_upgrade_pending():
        print("An earlier deployment was interrupted; rolling it back …", flush=True)
        roll_back_to(deployment, previous)
    deployment.prepare_namespaces(manifests)
    try:
        if changes:
            deployment.upgrade(description=f"commit {container_images.get_commit()}")
        run_smoke_test(deployment)
    except ToolError as error:
        if not changes:
            print(f"\n{error}\n", file=sys.stderr)
            raise ToolError(f"the smoke test of the current deployment failed: {describe(deployment)}") from error
        recover(deployment, previous, error)
    print(f"\nDeployed {describe(deployment)}")


def recover(deployment: Deployment, previous: Mapping[str, int], error: ToolError) -> NoReturn:
    """Roll back a failed deployment, unless the database was migrated.

    Args:
        previous: the revision of each release before the deployment; those of a failed first deployment are uninstalled.
        error: why it failed.

    Raises:
        ToolError: always; the message names the outcome, and what to do if the releases were not rolled back.
    """
    print(f"\n{error}\n", file=sys.stderr)
    # An interrupted first deployment may have left the other release alone.
    revision = previous.get("airflow")
    outcome = f"rolled back to revision {revision}" if revision else "uninstalled"
    print("Rolling back …" if revision else "Uninstalling …", flush=True)
    try:
        roll_back_to(deployment, previous)
    except ToolError as failure:
        raise ToolError(f"the deployment failed (the cause is above) and could not be rolled back: {failure}") from error
    raise ToolError(f"the deployment failed and was {outcome}; the cause is above") from error


def roll_back_to(deployment: Deployment, revisions: Mapping[str, int]) -> None:
    """Roll the releases back. Raises ToolError, and changes nothing, if the database has newer migrations."""
    if revision := revisions.get("airflow"):
        database_migrations.check_rollback(deployment, revision)
    deployment.roll_back(revisions)


def roll_back(deployment: Deployment) -> None:
    """Roll back to REVISION or the last successful revision with other content, and run the smoke test."""
    histories = {release: deployment.read_history(release) for release in helm_charts.RELEASES}
    revisions = helm_revisions.choose_rollback(histories, read_int("REVISION"))
    if not confirm(f"Roll {deployment} back to revision {revisions['airflow']}?"):
        raise ToolError("rollback cancelled")
    roll_back_to(deployment, revisions)
    run_smoke_test(deployment)
    print(f"\nRolled back {deployment} to revision {revisions['airflow']}")


def open_ui(deployment: Deployment) -> None:
    """Forward a port to the UI and print the login, until interrupted."""
    with deployment.port_forward("airflow-api-server", 8080, os.environ.get("UI_PORT") or 8080) as url:
        password = deployment.read_secret("airflow-admin")["password"]
        print(f"{url} (user admin, password {password}); press Ctrl-C to stop", flush=True)
        while True:
            time.sleep(3600)


def main(arguments: list[str]) -> int:
    """Run the command that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(prog="deploy.py", description="Deploy to an environment, helm/values-ENVIRONMENT.yaml.")
    parser.add_argument("command", choices=("render", "diff", "deploy", "rollback", "ui", "bucket-policy"))
    parser.add_argument("environment")
    options = parser.parse_args(arguments)
    command, environment = options.command, options.environment
    try:
        require_programs("helm", "kubectl", "git")
        if environment == "kind" and command in ("deploy", "rollback"):
            raise ToolError(f"make {command} does not support kind: use make kind-up")
        if command in ("render", "bucket-policy"):
            deployment = Deployment("", f"market-daily-{environment}", environment)
        else:
            deployment = find_deployment(environment)
        # Production runs images by digest only.
        if environment == "prod" and command in ("deploy", "diff", "render"):
            container_images.pin_digests()
        if command == "diff":
            print(diff_manifests(deployment.read_manifests(), deployment.render()) or NO_CHANGES)
        elif command == "render":
            print(deployment.render())
        elif command == "bucket-policy":
            print(bucket_policy.render(deployment.render(), os.environ.get("PRINCIPAL")))
        else:
            {"deploy": deploy, "rollback": roll_back, "ui": open_ui}[command](deployment)
    except ToolError as error:
        return print_error(error)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
