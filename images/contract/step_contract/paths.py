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


def prices(symbol: str, session: date, revision: int = 1) -> str:
    """Directory of the price partition of `symbol` on `session`.

    A correction of the source that a person has accepted is revision 2 and so on, beside the first.
    """
    return _partition("prices", symbol, session) + (f"/revision={revision}" if revision > 1 else "")


def parse_revision(path: str) -> int:
    """Return the revision that the path of a price partition names; 1 if it names none."""
    match = _REVISION.search(f"/{path}/")
    return int(match.group(1)) if match else 1


def latest_revisions(names: Iterable[str]) -> dict[date, str]:
    """Return, of objects below `prices_root`, the manifest of each session's latest revision, ordered by session."""
    manifests = sorted((parse_session(name), parse_revision(name), name) for name in names if name.endswith(f"/{MANIFEST}"))
    return {session: name for session, _, name in manifests}


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


def checkpoints(symbol: str, session: date, config: str, inputs: str) -> str:
    """Directory of the checkpoints of a training for `session`; `config` and `inputs` are digests."""
    return f"{_partition('checkpoints', symbol, session)}/config={config}/inputs={inputs}"


def promotions(symbol: str) -> str:
    """Directory of the promotions of `symbol`'s models, one object each, by number."""
    return f"{models_root(symbol)}/promotions"


def current_model(symbol: str) -> str:
    """The object that names the current model of `symbol`."""
    return f"{models_root(symbol)}/current.json"


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


MONITOR_HEARTBEAT = "monitor/heartbeat.json"


def parse_session(path: str) -> date:
    """Return the session that a path names as `session=YYYY-MM-DD`. Raises DataError if it names none."""
    match = _SESSION.search(f"/{path}/")
    try:
        return date.fromisoformat(match.group(1) if match else "")
    except ValueError:
        raise DataError(f"{path} names no session: remove it, only the pipeline writes below this directory") from None
