"""The secrets of an environment: those that can be made are made, once; those that must be given are asked for.

What is there is never changed, but for what follows from another secret. No value is printed, nor part of a command line.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable

from devtools import pgbouncer, slack_connection
from devtools.commands import ToolError

DATABASE_URL = "postgresql+psycopg2://airflow:{password}@postgres.{namespace}.svc:5432/airflow"
# In kind, unless another was given: the stand-in for Slack of manifests/, which takes any token.
STAND_IN = {"slack": {"AIRFLOW_CONN_SLACK_CONN": slack_connection.connection("xoxb-stand-in", "http://slack:8081/api/")}}
# What the outside gives, and how.
GIVEN = {
    "airflow-metadata": "connection=postgresql+psycopg2://USER:PASSWORD@HOST:5432/DATABASE",
    "bucket": "AWS_ACCESS_KEY_ID=… --from-literal=AWS_SECRET_ACCESS_KEY=…",
}


def keys(environment: str) -> dict[str, dict[str, str]]:
    """Fresh values for the secrets that every environment has, by name and key. Only in kind anyone knows the login."""
    return {
        "airflow-fernet-key": {"fernet-key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()},
        "airflow-jwt-secret": {"jwt-secret": secrets.token_urlsafe(48)},
        "airflow-api-secret-key": {"api-secret-key": secrets.token_urlsafe(48)},
        "airflow-admin": {"password": "admin" if environment == "kind" else secrets.token_urlsafe(18)},
        "airflow-watcher": {"password": secrets.token_urlsafe(18)},
    }


def services(namespace: str) -> dict[str, dict[str, str]]:
    """Fresh values for the secrets of the database and the bucket of manifests/, in `namespace`, and of who uses them."""
    password = secrets.token_urlsafe(24)
    return {
        "postgres": {"password": password},
        "airflow-metadata": {"connection": DATABASE_URL.format(password=password, namespace=namespace)},
        "bucket": {"AWS_ACCESS_KEY_ID": secrets.token_hex(10), "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(30)},
    }


def names(kubectl: Callable[..., str]) -> list[str]:
    """The secrets that are there."""
    return kubectl("get", "secrets", "--output", "jsonpath={.items[*].metadata.name}").split()


def read(kubectl: Callable[..., str], name: str) -> dict[str, str]:
    """The secret's values by key."""
    data = json.loads(kubectl("get", "secret", name, "--output=json"))["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def create(kubectl: Callable[..., str], name: str, data: dict[str, str], verb: str = "create") -> None:
    """Creates (or replaces) a secret; its values go through standard input alone."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}
    kubectl(verb, "--filename", "-", input=json.dumps(secret))


def put(kubectl: Callable[..., str], name: str, data: dict[str, str]) -> bool:
    """Creates the secret, or replaces what it says; whether it said something else before."""
    if name not in names(kubectl):
        create(kubectl, name, data)
        return False
    if read(kubectl, name) == data:
        return False
    create(kubectl, name, data, verb="replace")
    return True


def follow_database(kubectl: Callable[..., str]) -> None:
    """Creates the secrets of connection pooling, or brings them up to date with the database's address."""
    for name, data in pgbouncer.secrets_of(read(kubectl, "airflow-metadata")["connection"]).items():
        put(kubectl, name, data)


def make(kubectl: Callable[..., str], namespace: str, environment: str) -> list[str]:
    """Creates what is missing and can be made; returns the names. Raises ToolError naming what must be given."""
    there = names(kubectl)
    # The database's password and the connection with it in it are one secret in two.
    if "postgres" in there and "airflow-metadata" not in there:
        raise ToolError("the secret postgres is there and airflow-metadata is not: delete both, or write the second by hand")
    wanted = keys(environment) | (services(namespace) | STAND_IN if environment == "kind" else {})
    missing = {name: data for name, data in wanted.items() if name not in there}
    for name, data in missing.items():
        create(kubectl, name, data)
    if lacking := [name for name in GIVEN if name not in {*there, *missing}]:
        commands = "\n".join(
            f"  kubectl --namespace {namespace} create secret generic {name} --from-literal={GIVEN[name]}" for name in lacking
        )
        raise ToolError(f"{environment} needs secrets that only you can give, in the namespace {namespace}:\n{commands}")
    return list(missing)
