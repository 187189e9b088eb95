"""What is wrong with Airflow itself, which none of its own callbacks can see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta

from step_contract import paths

from airflow_monitor.airflow_client import DATABASE
from airflow_monitor.messages.block_kit import safe, section
from airflow_monitor.messages.formatting import FAILED, clock
from airflow_monitor.messages.message import Conversation, Limits, Message
from airflow_monitor.models import Dag, Health

# Airflow's first deployment makes its database, and the watcher's login, before anything answers.
FIRST_GRACE = timedelta(minutes=10)
FILE_GRACE = timedelta(seconds=30)
# After a fault the store is left alone for half a minute.
STORE_GRACE = timedelta(minutes=2)
# The scheduler makes a run within seconds of its time.
START_GRACE = timedelta(minutes=5)
PODS = "look at its pods (`kubectl get pods`, `make kind-status`)."
ADVICE = {
    "scheduler": f"no run starts and no task goes on: {PODS}",
    "triggerer": f"no step starts or ends: {PODS}",
    "dag_processor": f"changes of DAGs are not seen, and callbacks not run: {PODS}",
}


@dataclass(frozen=True)
class Trouble:
    """Something that is wrong: `name` tells it from others, `what` and `advice` are for people, `grace` is how long it may last
    before it is told."""

    name: str
    what: str
    advice: str
    grace: timedelta


def of_health(health: Health, grace: timedelta) -> Iterator[Trouble]:
    """Components that are not well for longer than `grace`, and DAG files that do not load."""
    for component, (status, heard) in health.components.items():
        if status == "healthy":
            continue
        since = f", last heard of at {clock(heard)}" if heard else ""
        what = f"Airflow's {component.replace('_', ' ')} is {status}{since}"
        yield Trouble(component, what, ADVICE.get(component, PODS), grace)
    for file, why in health.broken.items():
        what = f"`{safe(file, 200)}` does not load, its DAGs run as they last were or not at all: {safe(why, 500)}"
        yield Trouble(f"file {file}", what, "correct the file, and deploy.", FILE_GRACE)


def of_dags(dags: Sequence[Dag], busy: Set[str], now: datetime, limits: Limits) -> Iterator[Trouble]:
    """DAGs that are gone, and runs whose time has come and that were not started.

    A DAG that is `busy` may have to end another run first: that is late.
    """
    if not dags:
        advice = "do its DAGs lie in its image, and is the dag processor well? Its log says which files it finds."
        yield Trouble("dags", "Airflow knows no DAG, so nothing runs", advice, FIRST_GRACE)
    for dag in dags:
        named, waited = f"`{dag.dag_id}`", now - dag.next_due if dag.next_due else timedelta()
        due = clock(dag.next_due) if dag.next_due else ""
        if dag.gone:
            advice = "put its file back and deploy; or, if it was removed on purpose, delete the DAG in Airflow's UI."
            yield Trouble(f"gone {dag.dag_id}", f"{named} is in no DAG file any more, so it does not run", advice, limits.grace)
        elif dag.paused and waited > limits.late:
            advice = "unpause it: it makes up for the days of the last week, and a backfill in Airflow's UI for those before."
            yield Trouble(f"paused {dag.dag_id}", f"{named} is paused, and was due at {due}", advice, timedelta(0))
        elif not dag.paused and dag.dag_id not in busy and waited > START_GRACE:
            advice = "is the scheduler well? It makes up for the run once it is; if not, start it by hand."
            what = f"{named} should have run at {due}, and no run was started"
            yield Trouble(f"unstarted {dag.dag_id} {dag.next_due}", what, advice, timedelta(0))


def of_api(why: str, grace: timedelta, seen_before: bool) -> Trouble:
    """Airflow's API not saying how runs are getting on for longer than `grace`, which is all that can be said then."""
    what = f"Airflow's API does not say how runs are getting on: {safe(why, 300)}"
    advice = f"steps that run go on; {'look at the database, its secret and the network.' if why == DATABASE else PODS}"
    return Trouble("api", what, advice, grace if seen_before else FIRST_GRACE)


def of_store(why: str) -> Trouble:
    """The object store that the watcher can neither read nor write."""
    what = f"the object store cannot be read or written: {safe(why, 300)}"
    advice = "steps fail until it can, and are tried again: look at its server, its keys and the network."
    return Trouble("store", what, advice, STORE_GRACE)


class Troubles:
    """Which troubles last long enough to be told, and which that were told are over.

    `told`: when each began, by name, of those that were told and whose end was not; a watcher that starts goes on with them.
    """

    def __init__(self, told: Mapping[str, datetime]) -> None:
        self.told = dict(told)
        self._first: dict[str, datetime] = {}
        self._what: dict[str, Trouble] = {}

    def look(
        self, found: Sequence[Trouble], channel: str, now: datetime, *, blind: bool = False
    ) -> tuple[list[Conversation], list[str]]:
        """What the channel should read of these troubles by `now`, and the names of those that are over: once that is told,
        `settle` them. Who is `blind` sees what is found and not what is over.
        """
        kept = self._first if blind else {}
        self._first = kept | {one.name: self._first.get(one.name, now) for one in found}
        self._what = {name: one for name, one in self._what.items() if name in self.told} | {one.name: one for one in found}
        for one in found:
            if now - self._first[one.name] >= one.grace:
                self.told.setdefault(one.name, self._first[one.name])
        over = [] if blind else sorted(self.told.keys() - self._first.keys())
        lasting = [_message(one, self.told[one.name], channel, None) for one in found if one.name in self.told]
        return lasting + [_message(self._named(name), self.told[name], channel, now) for name in over], over

    def _named(self, name: str) -> Trouble:
        return self._what.get(name) or Trouble(name, safe(name, 200), "", timedelta(0))

    def settle(self, name: str) -> None:
        """Forgets a trouble whose end was told."""
        self.told.pop(name, None)
        self._what.pop(name, None)


def _message(trouble: Trouble, since: datetime, channel: str, ended: datetime | None) -> Conversation:
    folder = paths.deliveries(channel, "airflow", f"{trouble.name} {since.isoformat()}")
    if ended:
        text = f":white_check_mark: Over since {clock(ended)}: {trouble.what}"
        return Conversation(folder, Message("trouble", text, (section(text),)))
    text = f"{FAILED} {trouble.what}"
    return Conversation(folder, Message("trouble", text, (section(f"{text}\n*Do:* {trouble.advice}"),)))
