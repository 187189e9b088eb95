"""PgBouncer's configuration and secrets, derived from the database's connection."""

from __future__ import annotations

from urllib.parse import parse_qs, quote, unquote, urlsplit

from devtools.commands import ToolError

SERVICE, PORT, DATABASE = "airflow-pgbouncer", 6543, "airflow-metadata"
CONFIG_SECRET, STATS_SECRET, POOLED_SECRET = "airflow-pgbouncer-config", "airflow-pgbouncer-stats", "airflow-pooled"
# max_prepared_statements: Airflow's asynchronous queries are prepared statements, and pooling is by transaction.
# unix_socket_dir: the root file system is read-only.
INI = """\
[databases]
{database} = host={host} port={port} dbname={name}

[pgbouncer]
listen_addr = *
listen_port = {listen}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = /etc/pgbouncer/users.txt
stats_users = {user}
pool_mode = transaction
max_prepared_statements = 200
max_client_conn = 500
default_pool_size = 20
ignore_startup_parameters = extra_float_digits
server_tls_sslmode = {sslmode}
log_connections = 0
log_disconnections = 0
"""


def quote_value(text: str) -> str:
    """Return `text` as a value in PgBouncer's [databases] (https://www.pgbouncer.org/config.html#section-databases)."""
    return "'" + text.replace("'", "''") + "'"


def make_secrets(connection: str) -> dict[str, dict[str, str]]:
    """Return PgBouncer's secrets and Airflow's connection to it, by name and key.

    Args:
        connection: the SQLAlchemy URL of the database.

    Raises:
        ToolError: the URL lacks a part; the message does not contain the URL.
    """
    url = urlsplit(connection)
    name = unquote(url.path.removeprefix("/"))
    if not (url.hostname and url.username and url.password and name):
        raise ToolError(
            "invalid connection in the secret airflow-metadata; must be postgresql+psycopg2://USER:PASSWORD@HOST:5432/DATABASE"
        )
    user, password = unquote(url.username), unquote(url.password)
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    users = '"{}" "{}"\n'.format(*(word.replace('"', '""') for word in (user, password)))
    ini = INI.format(
        database=DATABASE,
        host=quote_value(url.hostname),
        port=url.port or 5432,
        name=quote_value(name),
        listen=PORT,
        user=user,
        sslmode=parse_qs(url.query).get("sslmode", ["prefer"])[0],
    )
    return {
        CONFIG_SECRET: {"pgbouncer.ini": ini, "users.txt": users},
        STATS_SECRET: {"connection": f"postgresql://{login}@127.0.0.1:{PORT}/pgbouncer?sslmode=disable"},
        POOLED_SECRET: {"connection": f"{url.scheme}://{login}@{SERVICE}:{PORT}/{DATABASE}"},
    }
