"""Where each artifact is stored, relative to the root of the artifacts. No other module builds a path."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from urllib.parse import quote

from step_contract.errors import ConfigurationError, DataError

MANIFEST = "manifest.json"

_SYMBOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_SESSION = re.compile(r"/session=(\d{4}-\d\d-\d\d)/")
_REVISION = re.compile(r"/revision=(\d+)/")


def validate_symbol(symbol: str) -> str:
    """Return `symbol` if it can be part of a path. Raises ConfigurationError otherwise."""
    if not _SYMBOL.fullmatch(symbol):
        raise ConfigurationError(f"invalid symbol {symbol!r}: use letters, digits, '.', '_' or '-', such as KS11")
    return symbol


def _partition(kind: str, symbol: str, session: date) -> str:
    return f"{kind}/symbol={validate_symbol(symbol)}/session={session.isoformat()}"


def decision(symbol: str, session: date, state: str) -> str:
    """Directory of the decision `state` (open, closed, suspect) on `session`.

    The state is part of the path: a session that was suspect and is open once the source has caught up has two decisions,
    and neither is deleted.
    """
    return f"{_partition('decisions', symbol, session)}/state={state}"


def prices_root(symbol: str) -> str:
    """Directory above all price partitions of `symbol`."""
    return f"prices/symbol={validate_symbol(symbol)}"


def prices(symbol: str, session: date) -> str:
    """Directory of the price partition of `symbol` on `session`."""
    return _partition("prices", symbol, session)


def revision(directory: str, number: int) -> str:
    """Directory of a revision of the artifact in `directory`: revision 1 is there, 2 and so on beside it (`revisions`)."""
    return f"{directory}/revision={number}" if number > 1 else directory


def parse_revision(path: str) -> int:
    """Return the revision that a path names; 1 if it names none."""
    match = _REVISION.search(f"/{path}/")
    return int(match.group(1)) if match else 1


def group_revisions(names: Iterable[str]) -> dict[str, dict[int, str]]:
    """Return, of any objects, the manifests of each artifact's revisions by ascending number, by the artifact's directory."""
    manifests = sorted((parse_revision(name), name) for name in names if name.endswith(f"/{MANIFEST}"))
    revisions: dict[str, dict[int, str]] = {}
    for number, name in manifests:
        directory = name.removesuffix(f"/{MANIFEST}").removesuffix(f"/revision={number}")
        revisions.setdefault(directory, {})[number] = name
    return revisions


def session_revisions(names: Iterable[str]) -> dict[date, dict[int, str]]:
    """Return, of objects below `prices_root`, the manifests of each session's revisions by ascending number, by session."""
    grouped = group_revisions(names)
    return dict(sorted((parse_session(directory), revisions) for directory, revisions in grouped.items()))


def headlines(session: date, feeds: str) -> str:
    """Directory of the headline partition of `session`; `feeds` is a digest of the feeds' configuration.

    The digest is part of the path for the same reason as a model's configuration.
    """
    return f"headlines/session={session.isoformat()}/feeds={feeds}"


def models_root(symbol: str) -> str:
    """Directory above all models of `symbol`."""
    return f"models/symbol={validate_symbol(symbol)}"


def model(symbol: str, session: date, config: str) -> str:
    """Directory of the model trained on `symbol` up to `session`; `config` is a digest of its configuration.

    The digest is part of the path: another configuration gives another model beside the first.
    """
    return f"{_partition('models', symbol, session)}/config={config}"


def latest_model(names: Iterable[str]) -> str | None:
    """Return, of objects below `models_root`, the manifest of a model of the latest session; None if there is no model.

    Of several models of that session it is the last revision of one of them. The names are enough: a model whose manifest is
    damaged was trained too.
    """
    manifests = [name for name in names if name.endswith(f"/{MANIFEST}") and _SESSION.search(name)]
    return max(manifests, key=lambda name: (parse_session(name), parse_revision(name), name), default=None)


def checkpoints(symbol: str, session: date, config: str, inputs: str) -> str:
    """Directory of the checkpoints of a training for `session`; `config` and `inputs` are digests."""
    return f"{_partition('checkpoints', symbol, session)}/config={config}/inputs={inputs}"


def promotions(symbol: str) -> str:
    """Directory of the promotions of `symbol`'s models, one object each, by number."""
    return f"{models_root(symbol)}/promotions"


def current_model(symbol: str) -> str:
    """The object that names the current model of `symbol`."""
    return f"{models_root(symbol)}/current.json"


def forecasts_root(symbol: str) -> str:
    """Directory above all forecasts that were issued for `symbol`."""
    return f"forecasts/symbol={validate_symbol(symbol)}"


def forecast(symbol: str, session: date) -> str:
    """Directory of the forecast that was issued for `symbol` on `session`.

    The path names neither model nor prices: a session has one forecast, that of its evening.
    """
    return _partition("forecasts", symbol, session)


def plot(symbol: str, session: date, config: str) -> str:
    """Directory of the plot of the forecast for `symbol` made on `session`; `config` is the digest of the model's."""
    return f"{_partition('plots', symbol, session)}/config={config}"


def _run(dag_id: str, run_id: str) -> str:
    return f"dag={quote(dag_id, safe='')}/run={quote(run_id, safe='')}"


def failures(dag_id: str, run_id: str) -> str:
    """Directory of the recorded failures of a run's tasks."""
    return f"monitor/failures/{_run(dag_id, run_id)}"


def failure(dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int) -> str:
    """The object that records why an attempt failed; `map_index` is -1 for a task that is not mapped."""
    return f"{failures(dag_id, run_id)}/{quote(task_id, safe='')}.{map_index}.{try_number}.json"


def termination(dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int) -> str:
    """The object that records how an attempt's step terminated, until a worker has set the task's state."""
    return f"monitor/terminations/{_run(dag_id, run_id)}/{quote(task_id, safe='')}.{map_index}.{try_number}.json"


def deliveries(channel: str, dag_id: str, run_id: str) -> str:
    """Directory of what was delivered to `channel` about a run, one object for each message."""
    return f"{channel_deliveries(channel)}/{_run(dag_id, run_id)}"


def channel_deliveries(channel: str) -> str:
    """Directory of everything that was delivered to `channel`."""
    return f"monitor/channel={quote(channel.lstrip('#'), safe='')}"


# The monitor's heartbeat, which a run that finishes reads. Three others are called so: Airflow's own (airflow_steps.liveness,
# and the health that the monitor reads), the file of the monitor's liveness probe (HEARTBEAT_FILE), and the requests to a dead
# man's switch (HEARTBEAT_URL).
MONITOR_HEARTBEAT = "monitor/heartbeat.json"


def parse_session(path: str) -> date:
    """Return the session that a path names as `session=YYYY-MM-DD`. Raises DataError if it names none."""
    match = _SESSION.search(f"/{path}/")
    try:
        return date.fromisoformat(match.group(1) if match else "")
    except ValueError:
        raise DataError(f"{path} names no session: remove it, only the pipeline writes below this directory") from None


def store_check(attempt: str) -> str:
    """Directory of the objects with which `make doctor` tries the store; the steps' key may write and delete it."""
    return f"smoke/doctor/attempt={attempt}"
