from __future__ import annotations

import base64
import json
from urllib.parse import unquote, urlsplit

import pytest
from devtools import kubernetes_secrets, pgbouncer
from devtools.commands import ToolError

URL = "postgresql+psycopg2://air%40flow:p%22a%2Fs%20s@db.example.com:5433/my%27data?sslmode=require"


def test_pgbouncer_and_airflow_use_the_databases_login() -> None:
    secrets = pgbouncer.make_secrets(URL)
    ini = secrets["airflow-pgbouncer-config"]["pgbouncer.ini"]
    assert "airflow-metadata = host='db.example.com' port=5433 dbname='my''data'\n" in ini
    assert "server_tls_sslmode = require\n" in ini and "stats_users = air@flow\n" in ini
    assert secrets["airflow-pgbouncer-config"]["users.txt"] == '"air@flow" "p""a/s s"\n'
    for name, port, path in (("airflow-pooled", 6543, "/airflow-metadata"), ("airflow-pgbouncer-stats", 6543, "/pgbouncer")):
        url = urlsplit(secrets[name]["connection"])
        assert (unquote(url.username or ""), unquote(url.password or "")) == ("air@flow", 'p"a/s s')
        assert (url.port, url.path) == (port, path)


@pytest.mark.parametrize("url", ["postgresql://host/airflow", "postgresql://user:hidden@host", "hidden"])
def test_an_invalid_database_url_is_reported_without_the_password(url: str) -> None:
    with pytest.raises(ToolError, match="invalid connection in the secret airflow-metadata") as raised:
        pgbouncer.make_secrets(url)
    assert "hidden" not in str(raised.value)


def test_pgbouncers_secrets_are_updated_with_the_databases_connection() -> None:
    secrets: dict[str, dict[str, str]] = {"airflow-metadata": {"connection": URL}}
    changes: list[str] = []

    def kubectl(verb: str, *arguments: str, input: str = "") -> str:
        if verb != "get":
            secret = json.loads(input)
            changes.append(f"{verb} {secret['metadata']['name']}")
            secrets[secret["metadata"]["name"]] = secret["stringData"]
            return ""
        if arguments[0] == "secrets":
            return " ".join(secrets)
        data = secrets[arguments[1]]
        return json.dumps({"data": {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}})

    names = sorted(pgbouncer.make_secrets(URL))
    kubernetes_secrets.apply_pgbouncer_secrets(kubectl)
    assert sorted(changes) == [f"create {name}" for name in names]
    kubernetes_secrets.apply_pgbouncer_secrets(kubectl)
    assert len(changes) == 3
    secrets["airflow-metadata"] = {"connection": URL.replace("5433", "5434")}
    kubernetes_secrets.apply_pgbouncer_secrets(kubectl)
    assert changes[3:] == ["replace airflow-pgbouncer-config"]
