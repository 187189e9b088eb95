"""What service accounts may do and what pods may connect to, evaluated from the rendered objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .container_checks import Object

Grant = tuple[str, str, str]


def namespace_of(manifest: Object, release_namespace: str) -> str:
    """Return the namespace of an object: its own, or by default that of its release."""
    namespace: str = manifest["metadata"].get("namespace") or release_namespace
    return namespace


def list_grants(objects: Iterable[Object], account: str, release_namespace: str) -> set[Grant]:
    """Return what a service account of the release's namespace may do, as (namespace, verb, resource)."""
    manifests = list(objects)
    roles = {
        (namespace_of(role, release_namespace), role["metadata"]["name"]): role["rules"]
        for role in manifests
        if role["kind"] == "Role"
    }
    grants = set[Grant]()
    for binding in (manifest for manifest in manifests if manifest["kind"] == "RoleBinding"):
        namespace = namespace_of(binding, release_namespace)
        subjects = {(subject["name"], subject.get("namespace", namespace)) for subject in binding["subjects"]}
        if (account, release_namespace) not in subjects:
            continue
        for rule in roles[namespace, binding["roleRef"]["name"]]:
            grants |= {(namespace, verb, resource) for verb in rule["verbs"] for resource in rule["resources"]}
    return grants


def matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector selects the labels."""
    for expression in selector.get("matchExpressions") or ():
        value, values = labels.get(expression["key"]), expression.get("values", ())
        operator = expression["operator"]
        if operator == "In" and value not in values:
            return False
        if operator == "NotIn" and value in values:
            return False
        if operator not in ("In", "NotIn"):
            raise NotImplementedError(operator)
    return dict(selector.get("matchLabels") or {}).items() <= labels.items()


def list_egress(
    objects: Iterable[Object], labels: Mapping[str, str], namespace: str, release_namespace: str
) -> dict[str, list[Object]]:
    """Return the egress rules that apply to a pod with these labels in this namespace, by the name of their policy."""
    return {
        policy["metadata"]["name"]: policy["spec"]["egress"]
        for policy in objects
        if policy["kind"] == "NetworkPolicy"
        and policy["spec"].get("egress")
        and namespace_of(policy, release_namespace) == namespace
        and matches(policy["spec"]["podSelector"], labels)
    }


def list_egress_ports(rules: Mapping[str, list[Object]]) -> set[int]:
    """Return the ports of egress rules."""
    return {int(port["port"]) for policy in rules.values() for rule in policy for port in rule["ports"]}
