"""The Kubernetes secrets of an environment.

Keys and passwords are generated once and never changed. Credentials of external services must be created by hand. PgBouncer's
secrets are derived from the database's. No value is printed or passed as an argument of a command.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable

from devtools import pgbouncer, slack_connection
from devtools.commands import ToolError
from devtools.helm_charts import StepSettings

Kubectl = Callable[..., str]

DATABASE_URL = "postgresql+psycopg2://airflow:{password}@postgres.{namespace}.svc:5432/airflow"
SIMULATOR_CONNECTION = slack_connection.make_connection(slack_connection.SIMULATOR_TOKEN, slack_connection.SIMULATOR_URL)
# Created by hand outside kind, by the options of kubectl create secret that follow --from-literal=.
BUCKET_KEY = "AWS_ACCESS_KEY_ID=… --from-literal=AWS_SECRET_ACCESS_KEY=…"
EXTERNAL = {
    "airflow-metadata": "connection=postgresql+psycopg2://USER:PASSWORD@HOST:5432/DATABASE",
    "bucket": BUCKET_KEY,
}


def generate_keys(environment: str) -> dict[str, dict[str, str]]:
    """Return new values of the secrets that every environment has, by name and key. In kind the password is admin."""
    return {
        "airflow-fernet-key": {"fernet-key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()},
        "airflow-jwt-secret": {"jwt-secret": secrets.token_urlsafe(48)},
        "airflow-api-secret-key": {"api-secret-key": secrets.token_urlsafe(48)},
        "airflow-admin": {"password": "admin" if environment == "kind" else secrets.token_urlsafe(18)},
        "airflow-monitor": {"password": secrets.token_urlsafe(18)},
    }


def generate_kind_credentials(namespace: str) -> dict[str, dict[str, str]]:
    """Return new credentials of the database, the bucket and the Slack simulator that run in `namespace` in kind."""
    password = secrets.token_urlsafe(24)
    return {
        "postgres": {"password": password},
        "airflow-metadata": {"connection": DATABASE_URL.format(password=password, namespace=namespace)},
        "bucket": {"AWS_ACCESS_KEY_ID": secrets.token_hex(10), "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(30)},
        "slack": {"AIRFLOW_CONN_SLACK_CONN": SIMULATOR_CONNECTION},
    }


def list_secrets(kubectl: Kubectl) -> list[str]:
    """Return the names of the namespace's secrets."""
    return kubectl("get", "secrets", "--output", "jsonpath={.items[*].metadata.name}").split()


def read_secret(kubectl: Kubectl, name: str) -> dict[str, str]:
    """Return the secret's values by key."""
    data = json.loads(kubectl("get", "secret", name, "--output=json"))["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def create_secret(kubectl: Kubectl, name: str, data: dict[str, str], verb: str = "create") -> None:
    """Create the secret, or replace it with the verb `replace`. The values are passed on standard input only."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}
    kubectl(verb, "--filename", "-", input=json.dumps(secret))


def apply_secret(kubectl: Kubectl, name: str, data: dict[str, str]) -> bool:
    """Create the secret, or replace it if its values differ. Return whether it was replaced."""
    if name not in list_secrets(kubectl):
        create_secret(kubectl, name, data)
        return False
    if read_secret(kubectl, name) == data:
        return False
    create_secret(kubectl, name, data, verb="replace")
    return True


def apply_pgbouncer_secrets(kubectl: Kubectl) -> None:
    """Create or update PgBouncer's secrets from the database's connection."""
    connection = read_secret(kubectl, "airflow-metadata")["connection"]
    for name, data in pgbouncer.make_secrets(connection).items():
        apply_secret(kubectl, name, data)


def create_missing_secrets(kubectl: Kubectl, namespace: str, environment: str) -> list[str]:
    """Create the secrets that are missing and can be generated; return the commands that create the others by hand.

    Raises:
        ToolError: the database of kind has a password that Airflow does not know.
    """
    existing = list_secrets(kubectl)
    # Both contain the database's password.
    if "postgres" in existing and "airflow-metadata" not in existing:
        raise ToolError(
            "the secret postgres exists, but airflow-metadata with the same password does not: delete postgres, or create "
            "airflow-metadata by hand"
        )
    generated = generate_keys(environment) | (generate_kind_credentials(namespace) if environment == "kind" else {})
    missing = {name: data for name, data in generated.items() if name not in existing}
    for name, data in missing.items():
        create_secret(kubectl, name, data)
    return [_make_command(namespace, name, EXTERNAL[name]) for name in EXTERNAL if name not in {*existing, *missing}]


def find_missing_step_credentials(
    kubectl: Kubectl, steps: StepSettings, environment: str, airflow_kubectl: Kubectl
) -> list[str]:
    """Return the command that creates the steps' key of the bucket by hand; none if it exists.

    In kind, whose bucket has one key, it is copied from Airflow's namespace.
    """
    if steps.credentials in list_secrets(kubectl):
        return []
    if environment == "kind":
        create_secret(kubectl, steps.credentials, read_secret(airflow_kubectl, "bucket"))
        return []
    hint = f"  # a key for steps only; its policy: make bucket-policy ENV={environment}"
    return [f"{_make_command(steps.namespace, steps.credentials, BUCKET_KEY)}\n{hint}"]


def _make_command(namespace: str, name: str, literal: str) -> str:
    return f"  kubectl --namespace {namespace} create secret generic {name} --from-literal={literal}"
