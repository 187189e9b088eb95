"""Makes the secrets that an environment needs and does not have yet; those that are there are never changed.

python scripts/make_secrets.py CONTEXT NAMESPACE
"""

from __future__ import annotations

import base64
import json
import secrets
import sys

from commands import Failed, fail, run

DATABASE_URL = "postgresql+psycopg2://airflow:{password}@postgres.{namespace}.svc:5432/airflow"


def wanted(namespace: str) -> dict[str, dict[str, str]]:
    """Fresh values for every secret, by name and key."""
    password = secrets.token_urlsafe(24)
    return {
        "airflow-fernet-key": {"fernet-key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()},
        "airflow-jwt-secret": {"jwt-secret": secrets.token_urlsafe(48)},
        "airflow-api-secret-key": {"api-secret-key": secrets.token_urlsafe(48)},
        "postgres": {"password": password},
        "airflow-metadata": {"connection": DATABASE_URL.format(password=password, namespace=namespace)},
        "bucket": {"AWS_ACCESS_KEY_ID": secrets.token_hex(10), "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(30)},
    }


def make(context: str, namespace: str) -> list[str]:
    """Creates the secrets that are missing; returns their names. The values go through standard input alone."""
    kubectl = ["kubectl", "--context", context, "--namespace", namespace]
    there = run([*kubectl, "get", "secrets", "--output", "jsonpath={.items[*].metadata.name}"], seconds=60).split()
    values = wanted(namespace)
    # The database's password and the connection with it in it are one secret in two.
    if "postgres" in there and "airflow-metadata" not in there:
        raise Failed("the secret postgres is there and airflow-metadata is not: delete both, or write the second by hand")
    missing = {name: data for name, data in values.items() if name not in there}
    for name, data in missing.items():
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}
        run([*kubectl, "create", "--filename", "-"], seconds=60, input=json.dumps(secret))
    return list(missing)


def main(context: str, namespace: str) -> int:
    """Makes the missing secrets and names them; returns the exit code."""
    try:
        print("secrets made:", ", ".join(make(context, namespace)) or "none, all were there")
    except Failed as error:
        return fail(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
