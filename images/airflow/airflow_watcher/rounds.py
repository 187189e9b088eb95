"""The watcher's rounds: look at Airflow, say what should be told, tell what is not told yet."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_steps import notes
from step_contract import paths
from step_contract.exit_codes import StepError
from step_contract.store import Store

from airflow_watcher import backfill_messages, run_messages
from airflow_watcher.airflow_api import Airflow, Unreachable
from airflow_watcher.message import Conversation, Limits, Pages
from airflow_watcher.seen import DELETED, ENDED, Dag, Run
from airflow_watcher.slack import NotConnected, Unavailable
from airflow_watcher.telling import Telling
from airflow_watcher.troubles import Troubles, of_api, of_health, of_schedules

log = logging.getLogger(__name__)
QUIET = "quiet"  # the tag of a DAG that somebody else looks after
# What a run's end brings a moment later: notes that another component has to write, Airflow's own last words.
OVERLAP = timedelta(minutes=3)
FIRST_LOOK = timedelta(minutes=10)
ALIVE_EVERY = timedelta(seconds=60)


class Watcher:
    """Watches `airflow` and tells `channel`.

    `goes_on` is called now and then in a long round; a round ends early once it says no.
    """

    def __init__(
        self,
        airflow: Airflow,
        telling: Telling,
        store: Store,
        channel: str,
        pages: Pages,
        limits: Limits,
        now: datetime,
        goes_on: Callable[[], bool] = lambda: True,
    ) -> None:
        self.airflow, self.telling, self.store, self.goes_on = airflow, telling, store, goes_on
        self.channel, self.pages, self.limits = channel, pages, limits
        before = _before(store)
        # Where the last watcher had told everything; a first one does not tell of what was before it.
        self.told_until = datetime.fromisoformat(before["told_until"]) if before else now - FIRST_LOOK
        self.troubles = Troubles({name: datetime.fromisoformat(at) for name, at in before.get("troubles", {}).items()})
        self.slack_says, self.unsent, self._written = "", 0, now - ALIVE_EVERY
        self._has_seen = False
        self._active: dict[tuple[str, str], Run] = {}
        self._logged: set[tuple[str, str, str]] = set()

    def round(self, now: datetime) -> None:
        """One look and what follows from it; raises nothing but faults of its own."""
        conversations: list[Conversation] = []
        runs: Sequence[Run] = ()
        blind = False
        try:
            health, dags = self.airflow.health(), self.airflow.dags()
            found = [*of_health(health, self.limits.grace), *of_schedules([dag for dag in dags if QUIET not in dag.tags], now)]
            runs = self._watched(dags)
            conversations = list(self._about([*runs, *self._deleted(runs)], now))
            self._has_seen = True
        except Unreachable as error:
            blind, found = True, [of_api(str(error), self.limits.grace, self._has_seen)]
        troubles, over = self.troubles.look(found, self.channel, now, blind=blind)
        if self._tell([*troubles, *conversations]) and not blind:
            for name in over:
                self.troubles.settle(name)
            self.told_until = now - OVERLAP
            self.airflow.forget(runs)
            self.telling.ledger.drop({one.folder for one in conversations})
        self.alive(now)

    def _deleted(self, runs: Sequence[Run]) -> list[Run]:
        """Runs that went on at the last look and are no longer there."""
        there = {(run.dag, run.run_id) for run in runs}
        gone = [run for name, run in self._active.items() if name not in there]
        self._active = {(run.dag, run.run_id): run for run in runs if run.state not in ENDED}
        return [replace(run, state=DELETED) for run in gone if run.kind != "backfill"]

    def _watched(self, dags: Sequence[Dag]) -> list[Run]:
        quiet = {dag.dag_id for dag in dags if QUIET in dag.tags}
        return [run for run in self.airflow.runs(self.told_until) if run.dag not in quiet]

    def _about(self, runs: Sequence[Run], now: datetime) -> Iterator[Conversation]:
        for run in runs:
            if run.kind != "backfill":
                whole = run if run.state == DELETED else self._whole(run)
                yield run_messages.about(whole, self.channel, now, self.pages, self.limits)
        for dag in sorted({run.dag for run in runs if run.kind == "backfill"}):
            for backfill in self.airflow.backfills(dag)[:3]:
                of_it = self.airflow.runs_of(backfill)
                if {run.run_id for run in of_it} & {run.run_id for run in runs}:
                    with_reasons = [self._noted(run) if run.state == "failed" else run for run in of_it]
                    yield backfill_messages.about(replace(backfill, runs=with_reasons), self.channel, self.pages)
                    break

    def _whole(self, run: Run) -> Run:
        return self._noted(replace(run, tasks=self.airflow.tasks(run)))

    def _noted(self, run: Run) -> Run:
        try:
            return replace(run, notes=notes.read(self.store, run.dag, run.run_id))
        except StepError as error:
            log.warning("why something failed is not known: %s", error)
            return run

    def _tell(self, conversations: Sequence[Conversation]) -> bool:
        """Whether Slack was told everything."""
        all_told = True
        for number, conversation in enumerate(conversations):
            if not self.goes_on():
                return False
            try:
                all_told &= self.telling.tell(conversation)
            except NotConnected as error:
                self._would_tell(conversations, str(error))
                return True
            except Unavailable as error:
                if self.slack_says != str(error) and "is not asked" not in str(error):
                    log.warning("%s; it is told later", error)
                    self.slack_says = str(error)
                self.unsent = len(conversations) - number
                return False
        if self.slack_says:
            log.info("Slack is told again")
        self.slack_says, self.unsent = "", 0
        return all_told

    def _would_tell(self, conversations: Sequence[Conversation], why: str) -> None:
        """Lets the log say, once, what Slack would have been told."""
        self.slack_says = why
        messages = [(one.folder, message) for one in conversations for message in (one.root, *one.replies)]
        for folder, message in messages:
            if (folder, message.key, message.digest) not in self._logged:
                log.info("%s, so not sent to #%s: %s", why, self.channel, message.text)
        self._logged = {(folder, message.key, message.digest) for folder, message in messages}

    def alive(self, now: datetime) -> None:
        """Writes down, once a minute, that the watcher is alive, and until when all was told."""
        if now - self._written < ALIVE_EVERY:
            return
        told: dict[str, Any] = {
            "at": now.isoformat(),
            "told_until": self.told_until.isoformat(),
            "slack": self.slack_says or "well",
        }
        told |= {"troubles": {name: at.isoformat() for name, at in self.troubles.told.items()}}
        try:
            self.telling.ledger.write()
            self.store.replace(paths.WATCHER_ALIVE, json.dumps(told).encode())
            self._written = now
        except StepError as error:
            log.warning("that the watcher is alive cannot be written down: %s", error)


def _before(store: Store) -> dict[str, Any]:
    try:
        return dict(json.loads(store.read(paths.WATCHER_ALIVE) or b"{}"))
    except (StepError, ValueError) as error:
        log.warning("what the watcher before this one has told is not known: %s", error)
        return {"told_until": (datetime.now(UTC) - timedelta(days=1)).isoformat()}
