"""The cluster itself: permissions of the person who runs this, pods, nodes, disks, quotas, volumes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from devtools import pods
from devtools.commands import ToolError
from step_contract.checks.findings import Finding, Status, error, ok, warning

from checks.cluster import READ_TIMEOUT_SECONDS, REQUEST_TIMEOUT, Cluster, Object, select_nodes

# Requests as VERB RESOURCE[.GROUP][/SUBRESOURCE]. What this program does; without one, some lines are missing.
DOCTOR = ("list pods", "create pods", "delete pods", "get pods/log", "create pods/exec", "list secrets", "get secrets")
# What make deploy does in addition.
DEPLOY = (
    *("create secrets", "delete jobs.batch", "create jobs.batch", "create deployments.apps", "patch deployments.apps"),
    *("create configmaps", "create services", "create serviceaccounts", "create networkpolicies.networking.k8s.io"),
    *("create roles.rbac.authorization.k8s.io", "create rolebindings.rbac.authorization.k8s.io", "create resourcequotas"),
    *("get events", "create pods/portforward"),
)
CLUSTER_WIDE = ("list nodes", "create namespaces")
NEARLY_USED = Decimal("0.8")
MIN_FREE_SHARE, MIN_FREE_BYTES = 0.1, 20 * 2**30
LEASE_SECONDS = 40  # the kubelet's node-lease duration; it renews it every 10 s
MIN_RESTARTS = 5
SUFFIXES: dict[str, int | Decimal] = {"": 1, "m": Decimal("0.001"), "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
SUFFIXES |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def make_review(request: str, namespace: str) -> Object:
    """Return the review of one request in a namespace; of a cluster-wide request if it is empty."""
    verb, _, resource = request.partition(" ")
    name, _, subresource = resource.partition("/")
    name, _, group = name.partition(".")
    attributes = {"verb": verb, "resource": name, "group": group, "subresource": subresource, "namespace": namespace}
    spec = {"resourceAttributes": {key: value for key, value in attributes.items() if value}}
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}


def review(cluster: Cluster, requests: Sequence[tuple[str, str]]) -> list[bool]:
    """Return for each request and namespace whether the API server permits it to the person who runs this."""
    body = {"apiVersion": "v1", "kind": "List", "items": [make_review(*request) for request in requests]}
    options = ("--filename", "-", "--output=json", REQUEST_TIMEOUT)
    output = cluster.deployment.kubectl("create", *options, input=json.dumps(body), timeout=READ_TIMEOUT_SECONDS)
    return [bool(answer["status"].get("allowed")) for answer in parse_objects(output)]


def parse_objects(output: str) -> list[Object]:
    """Return the objects that kubectl prints one after another, or as a list."""
    objects, decoder, position = list[Object](), json.JSONDecoder(), 0
    while (position := next((i for i in range(position, len(output)) if output[i] == "{"), -1)) >= 0:
        content, position = decoder.raw_decode(output, position)
        objects += content["items"] if content.get("kind") == "List" else [content]
    return objects


def check_permissions(cluster: Cluster, steps_namespace: str) -> Iterator[Finding]:
    """Yield what the person who runs this may not do here, and which lines or targets that affects."""
    namespaces = dict.fromkeys((cluster.deployment.namespace, steps_namespace))
    doctor = [(request, namespace) for namespace in namespaces for request in DOCTOR]
    deploy = [(request, namespace) for namespace in namespaces for request in DEPLOY]
    wide = [(request, "") for request in CLUSTER_WIDE]
    requests = [*doctor, *deploy, *wide]
    answers = dict(zip(requests, review(cluster, requests), strict=True))

    def list_denied(wanted: Sequence[tuple[str, str]]) -> str:
        return ", ".join(
            f"{request} ({namespace or 'cluster'})" for request, namespace in wanted if not answers[request, namespace]
        )

    if denied := list_denied([*doctor, wide[0]]):
        advice = "the checks that need it are left out or incomplete: ask for it, or let someone who has it run this"
        yield warning("permissions", f"you may not: {denied}", advice)
    if denied_deploy := list_denied([*deploy, wide[1]]):
        yield warning("permissions", f"you may not deploy, which needs: {denied_deploy}", "ask for it before make deploy")
    if not denied and not denied_deploy:
        yield ok("permissions", "you may run all checks and deploy")


def describe_state(pod: Object) -> str:
    """Return why a pod is not healthy, in a few words."""
    status = pod["status"]
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting = container["state"].get("waiting")
        if waiting and waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
            return f"{waiting['reason']}: {waiting.get('message') or ''}".rstrip(": ")
    unmet = [condition.get("message") for condition in status.get("conditions", []) if condition["status"] == "False"]
    return next((str(message) for message in unmet if message), str(status.get("phase")))


def check_components(cluster: Cluster) -> Iterator[Finding]:
    """Yield the deployments and stateful sets without the pods that they should have, and pods that often restart."""
    problems = 0
    for deployment in cluster.get("deployments.apps,statefulsets.apps"):
        kind = deployment["kind"].lower()
        name, wanted = deployment["metadata"]["name"], deployment["spec"].get("replicas", 1)
        available = deployment["status"].get("availableReplicas", 0)
        if wanted == 0:
            advice = f"kubectl --namespace {cluster.deployment.namespace} scale {kind} {name} --replicas=1"
            yield error("components", "it is scaled to 0", advice, name)
        elif available < wanted:
            states = [describe_state(pod) for pod in cluster.pods if belongs_to(pod, deployment) and not pods.is_healthy(pod)]
            conditions = deployment["status"].get("conditions", [])
            states += [condition["message"] for condition in conditions if condition["type"] == "ReplicaFailure"]
            message = f"{available} of {wanted} pods are available" + (f": {states[0]}" if states else "")
            advice = f"kubectl --namespace {cluster.deployment.namespace} describe pods and logs {kind}/{name} have the cause"
            yield (error if available == 0 else warning)("components", message, advice, name)
        else:
            continue
        problems += 1
    for pod in cluster.pods:
        restarts = sum(status.get("restartCount", 0) for status in pod["status"].get("containerStatuses", []))
        if restarts >= MIN_RESTARTS:
            advice = "kubectl logs --previous shows how it ended; the runbook has the causes"
            yield warning("components", f"{restarts} restarts", advice, pod["metadata"]["name"])
            problems += 1
    if not problems:
        yield ok("components", "all deployments have their pods")


def belongs_to(pod: Object, deployment: Object) -> bool:
    """Return whether the deployment selects the pod."""
    selector: Mapping[str, str] = deployment["spec"]["selector"].get("matchLabels", {})
    labels: Mapping[str, str] = pod["metadata"].get("labels", {})
    return selector.items() <= labels.items()


def check_nodes(cluster: Cluster) -> Iterator[Finding]:
    """Yield nodes that are not ready, or under pressure, and whether the trainer has a node."""
    problems = 0
    for node in cluster.nodes:
        name = node["metadata"]["name"]
        for condition in node["status"]["conditions"]:
            kind, value = condition["type"], condition["status"]
            if kind == "Ready" and value != "True":
                message = f"not ready: {condition.get('message') or condition.get('reason')}"
                yield error("nodes", message, "kubectl describe node has the cause; pods move after five minutes", name)
                problems += 1
            elif kind.endswith("Pressure") and value == "True":
                advice = "free disk or memory of the node, or add a node: the kubelet evicts pods"
                yield error("nodes", f"{kind}: {condition.get('message')}", advice, name)
                problems += 1
    if not problems:
        architectures = sorted({node["status"]["nodeInfo"]["architecture"] for node in cluster.nodes})
        yield ok("nodes", f"{len(cluster.nodes)} nodes are ready, without pressure; {', '.join(architectures)}")
    yield find_trainer_node(cluster.nodes, *cluster.get_placement("trainer"))


def find_trainer_node(nodes: Sequence[Object], selector: str, tolerations: str = "") -> Finding:
    """Return whether a node takes the trainer's pods."""
    usable = select_nodes(nodes, selector, tolerations)
    if not usable:
        advice = (
            "add or uncordon a node, or change trainer_node_selector or trainer_tolerations: train and forecast cannot start"
        )
        message = f"no node that takes pods has the labels of trainer_node_selector, {selector or 'none'}"
        return error("trainer-node", message, advice)
    names = ", ".join(node["metadata"]["name"] for node in usable)
    if any(node["status"]["nodeInfo"]["architecture"] == "amd64" for node in usable):
        return ok("trainer-node", f"{names} ({selector or 'any node'})")
    advice = "the line of the trainer's pod says whether its image runs there; an amd64 node is faster"
    return warning("trainer-node", f"{names}: none is amd64", advice)


def check_node_clocks(cluster: Cluster) -> Iterator[Finding]:
    """Yield whether the nodes' clocks agree with this machine's, by the leases that the kubelets renew every 10 s."""
    leases, now = cluster.get("leases", "--namespace=kube-node-lease"), datetime.now(UTC)
    bad = 0
    for lease in leases:
        renewed = datetime.fromisoformat(lease["spec"]["renewTime"])
        age = now - renewed
        if not timedelta(seconds=-5) <= age <= timedelta(seconds=LEASE_SECONDS):
            state = f"{abs(age.total_seconds()):.0f} s {'ago' if age > timedelta() else 'in the future'}"
            advice = "the kubelet does not respond, or a clock is wrong: compare date here and on the node, and set up NTP"
            yield warning("clock", f"its lease was renewed {state} by this machine's clock", advice, lease["metadata"]["name"])
            bad += 1
    if leases and not bad:
        yield ok("clock", f"{len(leases)} nodes agree with this machine's clock")


def parse_quantity(text: str) -> Decimal:
    """Return a Kubernetes quantity as a number."""
    number = text.rstrip("".join(set("".join(SUFFIXES))))
    return Decimal(number) * SUFFIXES[text[len(number) :]]


def check_quotas(cluster: Cluster) -> Iterator[Finding]:
    """Yield the quotas of both namespaces that are nearly or completely used."""
    problems, number = 0, 0
    namespaces = dict.fromkeys((cluster.deployment.namespace, cluster.steps.namespace))
    for namespace in namespaces:
        quotas = cluster.get("resourcequotas", f"--namespace={namespace}")
        for quota in quotas:
            hard, used = quota["status"].get("hard", {}), quota["status"].get("used", {})
            for resource, limit in hard.items():
                number += 1
                taken, most = parse_quantity(used.get(resource, "0")), parse_quantity(limit)
                if most and taken >= most * NEARLY_USED:
                    message = f"{used[resource]} of {limit} {resource} of the quota {quota['metadata']['name']} are used"
                    advice = "steps wait until others finish: look for pods that hang, or raise step_max_pods"
                    yield warning("quota", message, advice, namespace)
                    problems += 1
    if not problems:
        yield ok("quota", f"no limit is nearly used, of {number}")


def check_volumes(cluster: Cluster) -> Iterator[Finding]:
    """Yield volume claims that are not bound, and the free space of nodes and volumes where the kubelets may be asked."""
    claims = cluster.get("persistentvolumeclaims")
    unbound = [claim for claim in claims if claim["status"].get("phase") != "Bound"]
    for claim in unbound:
        advice = "kubectl describe pvc has the cause, often a missing storage class"
        yield error("volumes", f"the claim is {claim['status'].get('phase')}", advice, claim["metadata"]["name"])
    if not unbound:
        yield ok("volumes", f"{len(claims)} claims, all bound" if claims else "no persistent volume is used")
    lines = [line for node in cluster.nodes for line in read_disk(cluster, node["metadata"]["name"])]
    yield from (line for line in lines if line.status is not Status.OK)
    if lines and all(line.status is Status.OK for line in lines):
        yield ok("disk", "; ".join(line.message for line in lines))


def read_disk(cluster: Cluster, node: str) -> Iterator[Finding]:
    """Yield the free space of a node and of the volumes there that our namespace uses; nothing if it may not be read."""
    path = f"/api/v1/nodes/{node}/proxy/stats/summary"
    try:
        summary: dict[str, Any] = json.loads(
            cluster.deployment.kubectl("get", "--raw", path, REQUEST_TIMEOUT, timeout=READ_TIMEOUT_SECONDS)
        )
    except (ToolError, ValueError):
        return
    yield from judge_space(f"node {node}", summary.get("node", {}).get("fs", {}))
    for pod in summary.get("pods", []):
        for volume in pod.get("volume", []):
            reference = volume.get("pvcRef", {})
            if reference.get("namespace") == cluster.deployment.namespace:
                yield from judge_space(f"volume {reference['name']}", volume)


def judge_space(name: str, stats: Mapping[str, int]) -> Iterator[Finding]:
    """Yield how much space is free; a warning if that is little in GiB and in percent."""
    free, capacity = stats.get("availableBytes"), stats.get("capacityBytes")
    if free is None or not capacity:
        return
    message = f"{name}: {free / 2**30:.0f} GiB free of {capacity / 2**30:.0f}"
    if free < MIN_FREE_BYTES and free < capacity * MIN_FREE_SHARE:
        yield warning("disk", message, "free some space or enlarge it, before the kubelet evicts pods or a write fails")
    else:
        yield ok("disk", message)
