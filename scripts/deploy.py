"""Staging and production: deployed with a look before and a way back.

    python scripts/deploy.py deploy staging     # shows what would change, asks, upgrades, tries it out; rolls back on failure
    python scripts/deploy.py diff staging
    python scripts/deploy.py render staging
    python scripts/deploy.py rollback staging
    python scripts/deploy.py ui staging

CONTEXT, NAMESPACE, VALUES, YES, REVISION, UI_PORT, DEPLOY_SECONDS: see docs/deploy.md.
"""

from __future__ import annotations

import os
import sys
import time

from devtools import container_images, helm_charts, helm_revisions, pgbouncer
from devtools.commands import ToolError, fail, need, run
from devtools.dag_runs import smoke
from devtools.deployment import WAIT_SECONDS, Deployment
from devtools.manifest_diff import difference

KIND = ("kind-" + (os.environ.get("CLUSTER") or "market-daily"), "airflow")


def number(name: str) -> int | None:
    """The whole number that the variable `name` holds; None where it is not set. Raises ToolError where it is none."""
    text = os.environ.get(name)
    if text and not text.isdecimal():
        raise ToolError(f"{name} is {text!r} and must be a whole number")
    return int(text) if text else None


def target_of(environment: str) -> Deployment:
    """Where the environment is put. Raises ToolError where kubectl has no context to go to."""
    context, namespace = KIND if environment == "kind" else ("", f"market-daily-{environment}")
    context = os.environ.get("CONTEXT") or context or run(["kubectl", "config", "current-context"], seconds=30).strip()
    return Deployment(context, os.environ.get("NAMESPACE") or namespace, environment, number("DEPLOY_SECONDS") or WAIT_SECONDS)


def pin(environment: str) -> None:
    """Production takes images by digest: finds those of the images that were pushed. Raises ToolError where there is none."""
    if environment == "prod":
        for image in container_images.IMAGES:
            os.environ[container_images.variable_of(image)] = container_images.pinned(container_images.name_of(image))


def told(target: Deployment) -> str:
    """One line: what is deployed where."""
    names = ", ".join(container_images.name_of(image) for image in container_images.IMAGES)
    [release] = [one["chart"] for one in target.history("airflow")[-1:]]
    return f"{target.context}/{target.namespace}: commit {container_images.commit()}, chart {release}, images {names}"


def agreed(question: str) -> bool:
    """Whether a person, or YES=1, says yes. Raises ToolError where there is nobody to ask."""
    if os.environ.get("YES") == "1":
        return True
    if not sys.stdin.isatty():
        raise ToolError(f"{question} There is nobody here to ask: YES=1 says yes")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def deploy(target: Deployment) -> None:
    """Shows the difference, asks, upgrades and tries out; what fails is rolled back, and ToolError is raised."""
    before, wanted = target.current(), target.render()
    changes = difference(target.running(), wanted)
    print(changes or "nothing would change")
    if changes and not agreed(f"Deploy that to {target.context}/{target.namespace}?"):
        raise ToolError("not deployed")
    if target.is_cut_off():
        print("a deployment before was cut off: going back to what was in force …", flush=True)
        target.roll_back(before)
    target.prepare(pooled=pgbouncer.POOLED in wanted)
    try:
        if changes:
            target.upgrade(description=f"commit {container_images.commit()}")
        smoke(target)
    except ToolError as error:
        print(f"\n{error}\n", file=sys.stderr)
        if not changes:
            raise ToolError(f"what is deployed does not work: {told(target)}") from error
        back = f"revision {before['airflow']}" if before else "nothing, as before"
        print(f"rolling back to {back} …", flush=True)
        target.roll_back(before)
        raise ToolError(f"the deployment failed and was rolled back to {back}; the reason is above") from error
    print(f"\ndeployed: {told(target)}")


def rollback(target: Deployment) -> None:
    """Goes back to the last revision that was another and worked, or to REVISION; tries it out."""
    histories = {release: target.history(release) for release in helm_charts.RELEASES}
    wanted = helm_revisions.before(histories, number("REVISION"))
    if not agreed(f"Roll {target.context}/{target.namespace} back to revision {wanted['airflow']}?"):
        raise ToolError("not rolled back")
    target.roll_back(wanted)
    smoke(target)
    print(f"\nrolled back to revision {wanted['airflow']}: {target.context}/{target.namespace}")


def show(target: Deployment) -> None:
    """Opens a port to the UI, prints the login, and waits to be interrupted."""
    with target.forward("airflow-api-server", 8080, os.environ.get("UI_PORT") or 8080) as url:
        print(f"{url}  user admin, password {target.secret('airflow-admin')['password']}  (Ctrl-C ends)", flush=True)
        while True:
            time.sleep(3600)


def main(what: str, environment: str) -> int:
    """Does what is asked for; returns the exit code."""
    try:
        need("helm", "kubectl", "git")
        if environment == "kind" and what in ("deploy", "rollback"):
            raise ToolError("kind is deployed by make kind-up")
        target = Deployment("", f"market-daily-{environment}", environment) if what == "render" else target_of(environment)
        if what in ("deploy", "diff", "render"):
            pin(environment)
        if what == "diff":
            print(difference(target.running(), target.render()) or "nothing would change")
        elif what == "render":
            print(target.render())
        else:
            {"deploy": deploy, "rollback": rollback, "ui": show}[what](target)
    except ToolError as error:
        return fail(error)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
