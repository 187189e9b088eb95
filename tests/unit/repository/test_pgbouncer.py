from __future__ import annotations

import base64
import json
from urllib.parse import unquote, urlsplit

import pytest
from devtools import kubernetes_secrets, pgbouncer
from devtools.commands import ToolError

URL = "postgresql+psycopg2://air%40flow:p%22a%2Fs%20s@db.example.com:5433/my%27data?sslmode=require"


def test_the_pooler_speaks_to_the_database_and_airflow_to_the_pooler_with_the_same_login() -> None:
    made = pgbouncer.secrets_of(URL)
    ini = made["airflow-pgbouncer-config"]["pgbouncer.ini"]
    assert "airflow-metadata = host='db.example.com' port=5433 dbname='my''data'\n" in ini
    assert "server_tls_sslmode = require\n" in ini and "stats_users = air@flow\n" in ini
    assert made["airflow-pgbouncer-config"]["users.txt"] == '"air@flow" "p""a/s s"\n'
    for name, port, path in (("airflow-pooled", 6543, "/airflow-metadata"), ("airflow-pgbouncer-stats", 6543, "/pgbouncer")):
        url = urlsplit(made[name]["connection"])
        assert (unquote(url.username or ""), unquote(url.password or "")) == ("air@flow", 'p"a/s s')
        assert (url.port, url.path) == (port, path)


@pytest.mark.parametrize("url", ["postgresql://host/airflow", "postgresql://user:hidden@host", "hidden"])
def test_an_address_that_lacks_a_part_is_told_without_the_password(url: str) -> None:
    with pytest.raises(ToolError, match="airflow-metadata is not like") as failed:
        pgbouncer.secrets_of(url)
    assert "hidden" not in str(failed.value)


def test_the_poolers_secrets_follow_the_databases_address() -> None:
    held: dict[str, dict[str, str]] = {"airflow-metadata": {"connection": URL}}
    done: list[str] = []

    def kubectl(verb: str, *arguments: str, input: str = "") -> str:
        if verb != "get":
            secret = json.loads(input)
            done.append(f"{verb} {secret['metadata']['name']}")
            held[secret["metadata"]["name"]] = secret["stringData"]
            return ""
        if arguments[0] == "secrets":
            return " ".join(held)
        data = held[arguments[1]]
        return json.dumps({"data": {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}})

    made = sorted(pgbouncer.secrets_of(URL))
    kubernetes_secrets.follow_database(kubectl)
    assert sorted(done) == [f"create {name}" for name in made]
    kubernetes_secrets.follow_database(kubectl)
    assert len(done) == 3
    held["airflow-metadata"] = {"connection": URL.replace("5433", "5434")}
    kubernetes_secrets.follow_database(kubectl)
    assert done[3:] == ["replace airflow-pgbouncer-config"]
