"""Where each artifact lies, relative to the root of the artifacts. Nothing else in the project spells a path."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from urllib.parse import quote

from step_contract.exit_codes import ConfigurationWrong, DataWrong

MANIFEST = "manifest.json"

_SYMBOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_SESSION = re.compile(r"/session=(\d{4}-\d\d-\d\d)/")
_REVISION = re.compile(r"/revision=(\d+)/")


def checked_symbol(symbol: str) -> str:
    """`symbol` itself when it can be part of a path; raises ConfigurationWrong otherwise."""
    if not _SYMBOL.fullmatch(symbol):
        raise ConfigurationWrong(f"the symbol {symbol!r} is not one: write letters, digits, '.', '_' or '-', such as KS11")
    return symbol


def _of(kind: str, symbol: str, session: date) -> str:
    return f"{kind}/symbol={checked_symbol(symbol)}/session={session.isoformat()}"


def decision(symbol: str, session: date, state: str) -> str:
    """Directory of the decision `state` (open, closed, suspect) on `session`.

    The state is part of the path: a session that was suspect and is open once the source caught up has two decisions,
    and neither had to be deleted.
    """
    return f"{_of('decisions', symbol, session)}/state={state}"


def prices_of(symbol: str) -> str:
    """Directory above all price partitions of `symbol`."""
    return f"prices/symbol={checked_symbol(symbol)}"


def prices(symbol: str, session: date, revision: int = 1) -> str:
    """Directory of the price partition of `symbol` on `session`.

    What the source corrected later, and a person took, is revision 2 and so on, beside the first.
    """
    return _of("prices", symbol, session) + (f"/revision={revision}" if revision > 1 else "")


def revision_of(path: str) -> int:
    """The revision that the path of a price partition names; 1 where it names none."""
    found = _REVISION.search(f"/{path}/")
    return int(found.group(1)) if found else 1


def latest(names: Iterable[str]) -> dict[date, str]:
    """Of objects below `prices_of`, the manifest of each session's latest revision, in order of the sessions."""
    manifests = sorted((session_of(name), revision_of(name), name) for name in names if name.endswith(f"/{MANIFEST}"))
    return {session: name for session, _, name in manifests}


def headlines(session: date, feeds: str) -> str:
    """Directory of the headline partition of `session` from `feeds`, digits that stand for what feeds were read.

    They are part of the path for the same reason as a model's recipe.
    """
    return f"headlines/session={session.isoformat()}/feeds={feeds}"


def models_of(symbol: str) -> str:
    """Directory above all models of `symbol`."""
    return f"models/symbol={checked_symbol(symbol)}"


def model(symbol: str, session: date, recipe: str) -> str:
    """Directory of the model trained on `symbol` up to `session` by `recipe`.

    The recipe is part of the path: who tries another configuration gets another model beside the first.
    """
    return f"{_of('models', symbol, session)}/recipe={recipe}"


def checkpoints(symbol: str, session: date, recipe: str, inputs: str) -> str:
    """Directory of the state of a training for `session` by `recipe` from `inputs`, digits that stand for them."""
    return f"{_of('checkpoints', symbol, session)}/recipe={recipe}/inputs={inputs}"


def promotions(symbol: str) -> str:
    """Directory of the promotions of `symbol`'s models, one object each, by number."""
    return f"{models_of(symbol)}/promotions"


def current_model(symbol: str) -> str:
    """The object that says which model of `symbol` is the current one."""
    return f"{models_of(symbol)}/current.json"


def plot(symbol: str, session: date, recipe: str) -> str:
    """Directory of the plot of the forecast for `symbol` made on `session` by `recipe`."""
    return f"{_of('plots', symbol, session)}/recipe={recipe}"


def _run(dag: str, run: str) -> str:
    return f"dag={quote(dag, safe='')}/run={quote(run, safe='')}"


def notes(dag: str, run: str) -> str:
    """Directory of what was noted of a run's failures."""
    return f"slack/notes/{_run(dag, run)}"


def note(dag: str, run: str, task: str, map_index: int, number: int) -> str:
    """The object that says why try `number` of a task failed; `map_index` is -1 of a task that is not mapped."""
    return f"{notes(dag, run)}/{quote(task, safe='')}.{map_index}.{number}.json"


def end(dag: str, run: str, task: str, map_index: int, number: int) -> str:
    """The object that says how the step of try `number` ended, before a worker has settled what becomes of the task."""
    return f"slack/ends/{_run(dag, run)}/{quote(task, safe='')}.{map_index}.{number}.json"


def told(channel: str, dag: str, run: str) -> str:
    """Directory of what `channel` was told of a run: an object for each message."""
    return f"{told_in(channel)}/{_run(dag, run)}"


def told_in(channel: str) -> str:
    """Directory of all that `channel` was told."""
    return f"slack/channel={quote(channel.lstrip('#'), safe='')}"


WATCHER_ALIVE = "slack/watcher-alive.json"


def session_of(path: str) -> date:
    """The session that a path names as `session=YYYY-MM-DD`; raises DataWrong when it names none."""
    found = _SESSION.search(f"/{path}/")
    try:
        return date.fromisoformat(found.group(1) if found else "")
    except ValueError:
        raise DataWrong(f"{path} names no session: remove it, only the pipeline writes below this folder") from None
