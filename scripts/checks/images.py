"""The images: pulled on every node that needs them, built for its architecture, and those that the values name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from devtools import container_images
from devtools.commands import ToolError, run
from step_contract.checks.findings import Finding, error, ok, warning

from checks.cluster import Cluster, Object, select_nodes

PULL_FAILURES = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
REGISTRY_TIMEOUT_SECONDS = 20


def find_pull_failures(pods: Sequence[Object]) -> dict[str, str]:
    """Return why a pod's image cannot be pulled, by the pod's name."""
    failures = {}
    for pod in pods:
        status = pod["status"]
        for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
            waiting = container["state"].get("waiting") or {}
            if waiting.get("reason") in PULL_FAILURES:
                failures[pod["metadata"]["name"]] = f"{container['image']}: {waiting.get('message') or waiting['reason']}"
    return failures


def name_airflow_image(values: Mapping[str, Any]) -> str:
    """Return the full name of Airflow's image in the values."""
    image = values["images"]["airflow"]
    return f"{image['repository']}@{image['digest']}" if image.get("digest") else f"{image['repository']}:{image['tag']}"


def check_images(cluster: Cluster) -> Iterator[Finding]:
    """Yield images that cannot be pulled, and pods whose image is not the one that the values name."""
    failures = find_pull_failures([*cluster.pods, *cluster.step_pods])
    for name, reason in failures.items():
        advice = "check the image's name, the registry and the pull secret; make push pushes it, make kind-up loads it in kind"
        yield error("images", f"cannot be pulled: {reason}", advice, name)
    expected = name_airflow_image(cluster.values)
    other: dict[str, str] = {}
    for name, (component, pod) in cluster.airflow_pods.items():
        images = [container["image"] for container in pod["spec"]["containers"] if container["name"] == component]
        if images != [expected]:
            other[name] = ", ".join(images)
    for name, running in other.items():
        advice = "a rollout is in progress, or someone changed the deployment by hand: make diff, then make deploy"
        yield warning("images", f"it runs {running}, the values say {expected}", advice, name)
    if not failures and not other:
        yield ok("images", f"all pods run {expected}")


def find_unsupported(
    platforms: Mapping[str, set[str]], architectures: Mapping[str, set[str]]
) -> Iterator[tuple[str, set[str]]]:
    """Yield each image with the nodes' architectures that it was not built for.

    Args:
        platforms: the architectures of each image; an image whose architectures are unknown is left out.
        architectures: those of the nodes that may run it.
    """
    for image, needed in architectures.items():
        if image in platforms and (missing := needed - platforms[image]):
            yield image, missing


def check_architectures(cluster: Cluster) -> Iterator[Finding]:
    """Yield images that were not built for every node that may run them, where registry or Docker know for which they were."""
    names = {"airflow": name_airflow_image(cluster.values)}
    names |= {program: cluster.settings.get(f"{program}_image", "") for program in container_images.PROGRAMS}
    needed = {}
    for program, name in names.items():
        nodes = select_nodes(cluster.nodes, *cluster.get_placement(program))
        needed[name] = {node["status"]["nodeInfo"]["architecture"] for node in nodes}
    known = {name: found for name in names.values() if name and (found := read_platforms(name))}
    problems = list(find_unsupported(known, needed))
    for image, missing in problems:
        advice = "build it for these architectures too (docker buildx), or keep its pods off those nodes by a node selector"
        yield warning("image-architectures", f"{image} was not built for {', '.join(sorted(missing))}", advice)
    if not problems:
        unknown = [name for name in names.values() if name not in known]
        note = f"; unknown here, the pods show it: {', '.join(unknown)}" if unknown else ""
        yield ok("image-architectures", f"{len(known)} images fit the nodes' architectures{note}")


def read_platforms(name: str) -> set[str]:
    """Return the architectures of an image, of the local one or in its registry; empty if neither is known."""
    try:
        return {
            run(["docker", "image", "inspect", "--format", "{{.Architecture}}", name], timeout=REGISTRY_TIMEOUT_SECONDS).strip()
        }
    except ToolError:
        pass
    if "/" not in name or "." not in name.partition("/")[0] + name.partition(":")[0]:
        return set()  # a name without a registry: Docker's hub would be asked for a local image
    try:
        manifest = json.loads(run(["docker", "manifest", "inspect", name], timeout=REGISTRY_TIMEOUT_SECONDS))
    except (ToolError, ValueError):
        return set()
    found = {entry.get("platform", {}).get("architecture", "") for entry in manifest.get("manifests", [])}
    return found - {"", "unknown"}
