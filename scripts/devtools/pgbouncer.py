"""The secrets of connection pooling: all of them follow from the database's address."""

from __future__ import annotations

from urllib.parse import parse_qs, quote, unquote, urlsplit

from devtools.commands import ToolError

SERVICE, PORT, DATABASE = "airflow-pgbouncer", 6543, "airflow-metadata"
CONFIG, STATS, POOLED = "airflow-pgbouncer-config", "airflow-pgbouncer-stats", "airflow-pooled"
# Transactions share connections. Airflow's asynchronous queries are prepared statements, hence max_prepared_statements. The
# root file system is read-only, hence no socket file.
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


def quoted(text: str) -> str:
    """`text` as a value in PgBouncer's [databases] (https://www.pgbouncer.org/config.html#section-databases)."""
    return "'" + text.replace("'", "''") + "'"


def secrets_of(connection: str) -> dict[str, dict[str, str]]:
    """PgBouncer's secrets and Airflow's address of it, by name and key, for a database at the SQLAlchemy URL `connection`.

    Raises ToolError, without telling the URL, where it lacks a part.
    """
    url = urlsplit(connection)
    name = unquote(url.path.removeprefix("/"))
    if not (url.hostname and url.username and url.password and name):
        raise ToolError(
            "connection in the secret airflow-metadata is not like postgresql+psycopg2://USER:PASSWORD@HOST:5432/DATABASE"
        )
    user, password = unquote(url.username), unquote(url.password)
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    users = '"{}" "{}"\n'.format(*(word.replace('"', '""') for word in (user, password)))
    ini = INI.format(
        database=DATABASE,
        host=quoted(url.hostname),
        port=url.port or 5432,
        name=quoted(name),
        listen=PORT,
        user=user,
        sslmode=parse_qs(url.query).get("sslmode", ["prefer"])[0],
    )
    return {
        CONFIG: {"pgbouncer.ini": ini, "users.txt": users},
        STATS: {"connection": f"postgresql://{login}@127.0.0.1:{PORT}/pgbouncer?sslmode=disable"},
        POOLED: {"connection": f"{url.scheme}://{login}@{SERVICE}:{PORT}/{DATABASE}"},
    }
