"""Secrets: present, well-formed, and the same in every pod. No value is printed; values are compared by keyed digests."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import urllib.parse
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from devtools import kubernetes_secrets, pgbouncer, slack_connection
from devtools.commands import ToolError
from step_contract.checks.findings import Finding, error, ok, warning

from checks.cluster import Cluster, Object

MIN_KEY_LENGTH = 32
OPTIONAL = ("slack",)
CREATED = "make deploy creates it; outside kind, it lists what you must create"
Reference = tuple[str, str]  # a secret's name and key


def find_fernet_problem(value: str) -> str:
    """Return what is wrong with Fernet keys, the new one first, separated by commas; empty if nothing is."""
    for key in value.split(","):
        try:
            size = len(base64.b64decode(key.encode(), altchars=b"-_", validate=True))
        except (binascii.Error, ValueError):
            size = 0
        if size != 32:
            return "must be 32 bytes in URL-safe base64, or several of these separated by commas"
    return ""


def find_key_problem(value: str) -> str:
    """Return what is wrong with a key that signs tokens or cookies; empty if nothing is."""
    return "" if len(value) >= MIN_KEY_LENGTH else f"has {len(value)} characters, at least {MIN_KEY_LENGTH} are needed"


def find_password_problem(value: str) -> str:
    """Return what is wrong with a password; empty if nothing is."""
    return "" if value else "is empty"


def find_connection_problem(value: str) -> str:
    """Return what is wrong with the URI of the metadata database; empty if nothing is."""
    try:
        address = urllib.parse.urlsplit(value)
        complete = address.hostname and address.username and address.path.strip("/") and (address.port or True)
    except ValueError:
        return "is no URI: a password with special characters must be percent-encoded"
    if not re.fullmatch(r"postgres(ql)?(\+\w+)?", address.scheme) or not complete:
        return (
            "must be postgresql+psycopg2://USER:PASSWORD@HOST:5432/DATABASE; percent-encode special characters of the password"
        )
    return ""


RULES: Mapping[Reference, Callable[[str], str]] = {
    ("airflow-fernet-key", "fernet-key"): find_fernet_problem,
    ("airflow-jwt-secret", "jwt-secret"): find_key_problem,
    ("airflow-api-secret-key", "api-secret-key"): find_key_problem,
    ("airflow-metadata", "connection"): find_connection_problem,
    ("airflow-admin", "password"): find_password_problem,
    ("airflow-monitor", "password"): find_password_problem,
    ("bucket", "AWS_ACCESS_KEY_ID"): find_password_problem,
    ("bucket", "AWS_SECRET_ACCESS_KEY"): find_password_problem,
    ("slack", "AIRFLOW_CONN_SLACK_CONN"): slack_connection.find_problem,
}


def find_problem(rule: Callable[[str], str], value: str) -> str:
    """Return what is wrong with a secret's value; white space at its ends is wrong for every rule."""
    return "begins or ends with white space, such as a newline" if value != value.strip() else rule(value)


def read_secrets(kubectl: Callable[..., str], names: set[str]) -> dict[str, dict[str, str]]:
    """Return the values of those of the secrets that exist, by name and key. Raises ToolError if they may not be read."""
    existing = kubernetes_secrets.list_secrets(kubectl)
    return {name: kubernetes_secrets.read_secret(kubectl, name) for name in sorted(names) if name in existing}


def judge(
    secrets: Mapping[str, Mapping[str, str]], rules: Mapping[Reference, Callable[[str], str]], namespace: str
) -> Iterator[Finding]:
    """Yield for each secret that is missing or malformed what to do about it, or that all are well-formed."""
    problems = 0
    for (name, key), rule in rules.items():
        if name not in secrets or key not in secrets[name]:
            missing = f"the secret {name} has no key {key}" if name in secrets else f"the secret {name} does not exist"
            if name in OPTIONAL:
                advice = "messages are only logged; docs/slack.md describes how to connect a workspace"
                yield warning("secrets", missing, advice, namespace)
            else:
                yield error("secrets", missing, CREATED, namespace)
            problems += 1
        elif problem := find_problem(rule, secrets[name][key]):
            advice = f"correct it (kubectl --namespace {namespace} edit secret {name}), then restart the pods"
            yield error("secrets", f"the key {key} of the secret {name} {problem}", advice, namespace)
            problems += 1
    if not problems:
        names = ", ".join(dict.fromkeys(name for name, _ in rules))
        yield ok("secrets", f"present and well-formed: {names}", namespace)


def check_secrets(cluster: Cluster) -> Iterator[Finding]:
    """Yield whether the secrets of both namespaces are present and well-formed."""
    namespace, kubectl, steps = cluster.deployment.namespace, cluster.deployment.kubectl, cluster.steps
    secrets = read_secrets(kubectl, {name for name, _ in RULES} | {"airflow-pooled"})
    yield from judge(secrets, RULES, namespace)
    if steps.credentials and steps.namespace != namespace:
        rules = {(steps.credentials, key): find_password_problem for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        yield from judge(read_secrets(cluster.in_steps_namespace.kubectl, {steps.credentials}), rules, steps.namespace)
    if pgbouncer.POOLED_SECRET in cluster.manifests and "airflow-metadata" in secrets:
        expected = pgbouncer.make_secrets(secrets["airflow-metadata"].get("connection", "")).get("airflow-pooled")
        if expected and secrets.get("airflow-pooled") != expected:
            advice = f"make deploy ENV={cluster.deployment.environment} derives it again"
            yield error("secrets", "airflow-pooled does not fit airflow-metadata", advice, namespace)


def list_references(pod: Object, container: str, keys: Mapping[str, Mapping[str, Any]]) -> dict[str, Reference]:
    """Return the environment variables of a container that come from secrets, with their secret and key.

    Args:
        pod: the pod.
        container: the container's name.
        keys: the keys of each secret, for references to a whole secret.
    """
    [spec] = [spec for spec in pod["spec"]["containers"] if spec["name"] == container]
    references: dict[str, Reference] = {}
    for source in spec.get("envFrom", []):
        name = source.get("secretRef", {}).get("name", "")
        references |= {f"{source.get('prefix', '')}{key}": (name, key) for key in keys.get(name, {})}
    for variable in spec.get("env", []):
        references.pop(variable["name"], None)
        if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
            references[variable["name"]] = (reference["name"], reference["key"])
    # A mounted secret that the container's command exports under the keys' names.
    for volume in pod["spec"].get("volumes", []):
        name = volume.get("secret", {}).get("secretName", "")
        references |= {key: (name, key) for key in keys.get(name, {}) if re.fullmatch(r"[A-Z_]+", key)}
    return references


def digest(value: str, salt: str) -> str:
    """Return the keyed digest of a value, as airflow_steps.doctor computes it in a pod."""
    return hmac.new(salt.encode(), value.encode(), hashlib.sha256).hexdigest()


def compare(
    pods: Mapping[str, Mapping[Reference, str | None]], secrets: Mapping[str, Mapping[str, str]], salt: str
) -> Iterator[Finding]:
    """Yield which pods have another value than the secret has now, or than other pods have.

    Args:
        pods: the digest of each secret's value in each pod; None if the pod does not have it.
        secrets: the current values, without those that may not be read.
        salt: the key of the digests.
    """
    holders: dict[Reference, dict[str, str | None]] = defaultdict(dict)
    for pod, digests in pods.items():
        for reference, value in digests.items():
            holders[reference][pod] = value
    stale: dict[str, list[str]] = defaultdict(list)
    for (name, key), values in holders.items():
        current = digest(secrets[name][key], salt) if key in secrets.get(name, {}) else None
        if current is None and len(set(values.values())) > 1:
            advice = "restart all of them: kubectl rollout restart deployment"
            yield error("secrets-in-pods", f"{', '.join(sorted(values))} have different values of {name}/{key}", advice)
        for pod, value in values.items():
            if current is not None and value != current:
                stale[f"{name}/{key}"].append(pod)
    for value_of, names in stale.items():
        advice = "they started before it was changed: kubectl rollout restart deployment, and the pods read it again"
        yield error("secrets-in-pods", f"{', '.join(sorted(names))} have another value of {value_of} than the secret", advice)
    if not stale and all(len(set(values.values())) == 1 for values in holders.values()):
        yield ok("secrets-in-pods", f"{len(pods)} pods have the current values of {len(holders)} keys")


def read_readable(cluster: Cluster, names: set[str]) -> dict[str, dict[str, str]]:
    """Return the values of the secrets; none if they may not be read."""
    try:
        return read_secrets(cluster.deployment.kubectl, names)
    except ToolError:
        return {}
