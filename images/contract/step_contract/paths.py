"""Where each artifact is stored, relative to the root of the artifacts. No other module builds a path."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from urllib.parse import quote

from step_contract.errors import ConfigurationError, DataError

MANIFEST = "manifest.json"

_SYMBOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_SESSION = re.compile(r"/session=(\d{4}-\d\d-\d\d)/")
_REVISION = re.compile(r"/revision=(\d+)/")
_SYMBOL_PART = re.compile(rf"/symbol=({_SYMBOL.pattern})/")
_CONFIG = re.compile(r"/config=([^/]+)/")
# A manifest's path: kind, symbol if it has one, session, what distinguishes artifacts of one session, revision from 2 on.
_ARTIFACT = (
    rf"(?P<kind>[a-z][a-z-]*)(?:/symbol=(?P<symbol>{_SYMBOL.pattern}))?/session=(?P<session>\d{{4}}-\d\d-\d\d)"
    rf"(?:/(?!revision=)[a-z]+=[A-Za-z0-9]+)*(?:/revision=(?P<revision>[1-9][0-9]{{0,8}}))?/{MANIFEST}"
)
_PATH, _URI = re.compile(_ARTIFACT), re.compile(rf"(?P<root>.*?)/(?P<path>{_ARTIFACT})")


class ObjectKind(StrEnum):
    """What an object below the artifacts is, by its path."""

    MANIFEST = "manifest"
    FILE = "file"  # of an attempt, whether its manifest exists or not
    CHECKPOINT = "checkpoint"
    POINTER = "pointer"  # a promotion, or the current model
    MONITOR = "monitor"
    UNKNOWN = "unknown"


def classify(path: str) -> ObjectKind:
    """Return what the object at `path` is."""
    if parse_artifact_path(path):
        return ObjectKind.MANIFEST
    directory, attempt, _ = path.partition("/attempt=")
    if attempt and parse_artifact_path(f"{directory}/{MANIFEST}"):
        return ObjectKind.FILE
    top = path.partition("/")[0]
    if top == "models" and re.fullmatch(rf"models/symbol={_SYMBOL.pattern}/(?:promotions/[^/]+|current)\.json", path):
        return ObjectKind.POINTER
    return {"checkpoints": ObjectKind.CHECKPOINT, "monitor": ObjectKind.MONITOR}.get(top, ObjectKind.UNKNOWN)


def validate_symbol(symbol: str) -> str:
    """Return `symbol` if it can be part of a path. Raises ConfigurationError otherwise."""
    if not _SYMBOL.fullmatch(symbol):
        raise ConfigurationError(f"invalid symbol {symbol!r}: use letters, digits, '.', '_' or '-', such as KS11")
    return symbol


@dataclass(frozen=True)
class ArtifactPath:
    """The path of a manifest, relative to the root of the artifacts.

    Attributes:
        path: the whole path; `kind` is its first directory, such as `prices`.
        symbol: empty if it has none, as headlines.
        revision: 1 for the first.
    """

    path: str
    kind: str
    symbol: str
    session: date
    revision: int

    @property
    def directory(self) -> str:
        """Directory of the revision."""
        return self.path.rpartition("/")[0]


def parse_artifact_path(path: str) -> ArtifactPath | None:
    """Return what the canonical path of a manifest names; None if `path` is not one."""
    match = _PATH.fullmatch(path)
    if not match or match["revision"] == "1":
        return None
    try:
        session = date.fromisoformat(match["session"])
    except ValueError:
        return None
    return ArtifactPath(path, match["kind"], match["symbol"] or "", session, int(match["revision"] or 1))


def split_artifact_uri(uri: str) -> tuple[str, str] | None:
    """Return the root of the artifacts and the path of the manifest that `uri` names; None if it names no manifest."""
    match = _URI.fullmatch(uri)
    return (match["root"], match["path"]) if match and parse_artifact_path(match["path"]) else None


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
    """Return, of objects below `prices_root`, the manifests of each session's revisions by ascending number, by session.

    Raises DataError if one is not directly in a session's directory, such as a copy that a person has made.
    """
    by_session = {}
    for directory, revisions in group_revisions(names).items():
        session = parse_session(directory)
        if not directory.endswith(f"/session={session}"):
            raise DataError(
                f"{directory} is no session's directory: move it elsewhere, only the pipeline writes below the artifacts"
            )
        by_session[session] = revisions
    return dict(sorted(by_session.items()))


def headlines(session: date, feeds: str) -> str:
    """Directory of the headline partition of `session`; `feeds` is a digest of the feeds' configuration.

    The digest is part of the path for the same reason as a model's configuration.
    """
    return f"headlines/session={session.isoformat()}/feeds={feeds}"


def models_root(symbol: str) -> str:
    """Directory above all models of `symbol`."""
    return f"models/symbol={validate_symbol(symbol)}"


def session_models(symbol: str, session: date, *, pinned: bool = False) -> str:
    """Directory above the models of `symbol` trained for `session`, of any configuration; `pinned` as for `model`."""
    return _partition("pinned-models" if pinned else "models", symbol, session)


def parse_config(directory: str) -> str:
    """Return the digest of the configuration that a model's directory names. Raises DataError if it names none."""
    match = _CONFIG.search(f"/{directory}/")
    if not match:
        raise DataError(f"{directory} names no configuration: remove it, only the pipeline writes below this directory")
    return match.group(1)


def model(symbol: str, session: date, config: str, *, pinned: bool = False) -> str:
    """Directory of the model trained on `symbol` up to `session`; `config` is a digest of its configuration.

    The digest is part of the path: another configuration gives another model beside the first. A model that reproduces a past
    result from `pinned` revisions is not below `models_root`: it is no candidate, and no model that others read.
    """
    return f"{session_models(symbol, session, pinned=pinned)}/config={config}"


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


def find_symbol(path: str) -> str:
    """Return the symbol that a path names as `symbol=…`; empty if it names none."""
    match = _SYMBOL_PART.search(f"/{path}/")
    return match.group(1) if match else ""


def store_check(attempt: str) -> str:
    """Directory of the objects with which `make doctor` tries the store; the steps' key may write and delete it."""
    return f"smoke/doctor/attempt={attempt}"
