"""The watcher's rounds: look at Airflow, say what should be told, tell what is not told yet."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta

from airflow_steps.metrics import set_gauge
from step_contract import paths
from step_contract.errors import StepError
from step_contract.store import Store

from airflow_watcher import backfill_messages, run_messages
from airflow_watcher.airflow_api import Airflow, Unreachable
from airflow_watcher.before import Before, read_before
from airflow_watcher.looking import Eyes, Look
from airflow_watcher.message import Conversation, Limits, Pages
from airflow_watcher.numbers import last_collected, numbers
from airflow_watcher.seen import ENDED, Run
from airflow_watcher.slack import NotConnected, Unavailable, Waiting
from airflow_watcher.telling import Telling
from airflow_watcher.troubles import Troubles, of_api, of_dags, of_health, of_store

log = logging.getLogger(__name__)
# What a run's end brings a moment later: notes that another component has to write, Airflow's own last words.
OVERLAP = timedelta(minutes=3)
FIRST_LOOK = timedelta(minutes=10)
ALIVE_EVERY = timedelta(seconds=60)


class Watcher:
    """Watches `airflow` and tells `channel`."""

    def __init__(
        self,
        airflow: Airflow,
        telling: Telling,
        store: Store,
        channel: str,
        pages: Pages,
        limits: Limits,
        now: datetime,
    ) -> None:
        self.eyes, self.telling, self.store = Eyes(airflow, store), telling, store
        self.channel, self.pages, self.limits = channel, pages, limits
        # A first watcher does not tell of what was before it; any other goes on where the last one had told everything.
        self.told_until, self.troubles = now - FIRST_LOOK, Troubles({})
        self.collected: date | None = None
        self._has_taken_over = False
        self.slack_says, self.store_says, self._written = "", "", now - ALIVE_EVERY
        self._written_troubles: set[str] = set()
        self._has_seen = False
        self._logged: set[tuple[str, str, str]] = set()

    def round(self, now: datetime) -> None:
        """One look and what follows from it; raises nothing but faults of its own."""
        self._take_over()
        conversations: list[Conversation] = []
        look = None
        try:
            look = self.eyes.look(self.told_until, now)
            found = [*of_health(look.health, self.limits.grace), *of_dags(look.dags, busy(look), now, self.limits)]
            conversations = self._about(look, now)
            self._has_seen = True
        except Unreachable as error:
            found = [of_api(str(error), self.limits.grace, self._has_seen)]
        if self.store_says:
            found.append(of_store(self.store_says))
        troubles, over = self.troubles.look(found, self.channel, now, blind=look is None)
        if self.troubles.told.keys() != self._written_troubles:
            self.alive(now, at_once=True)  # a watcher that follows must know of them before they are told
        if self._tell([*troubles, *conversations], now) and look:
            for name in over:
                self.troubles.settle(name)
            self.eyes.settle()
            self.told_until = now - OVERLAP
            self.telling.ledger.drop({one.folder for one in conversations})
        if look:
            self.collected = last_collected(look.runs, self.collected)
            for name, value in numbers(look, now, self.limits, self.collected):
                set_gauge(name, value)
        self.alive(now)

    def _take_over(self) -> None:
        """Goes on where the last watcher was, as soon as what it wrote down can be read."""
        if self._has_taken_over:
            return
        try:
            before = read_before(self.store)
        except StepError as error:
            log.warning("what the watcher before this one has told is not known yet: %s", error)
            self.store_says = str(error)
            return
        self._has_taken_over = True
        self.told_until = before.told_until or self.told_until
        self.troubles = Troubles({**before.troubles, **self.troubles.told})
        self.collected = before.collected

    def _about(self, look: Look, now: datetime) -> list[Conversation]:
        found = []
        for run in (*look.runs, *look.deleted):
            try:
                found.append(run_messages.about(run, self.channel, now, self.pages, self.limits))
            except Exception:
                # One run that cannot be put into words must not silence all others, nor itself.
                log.exception("%s %s: what its steps handed over cannot be told; the rest of it is", run.dag, run.run_id)
                found.append(run_messages.about(bare(run), self.channel, now, self.pages, self.limits))
        return found + [backfill_messages.about(backfill, self.channel, self.pages) for backfill in look.backfills]

    def _tell(self, conversations: Sequence[Conversation], now: datetime) -> bool:
        """Whether Slack was told everything."""
        all_told = True
        for conversation in conversations:
            try:
                all_told &= self.telling.tell(conversation)
            except NotConnected as error:
                self._would_tell(conversations, str(error))
                # Whoever connects it hears of the last day, not of the last year.
                self.told_until = max(self.told_until, now - timedelta(days=1))
                return False
            except Unavailable as error:
                if self.slack_says != str(error) and not isinstance(error, Waiting):
                    log.warning("%s; it is told later", error)
                    self.slack_says = str(error)
                return False
            except Exception:
                log.exception("%s could not be told; it is tried again", conversation.folder)
                all_told = False
        if self.slack_says:
            log.info("Slack is told again")
        self.slack_says = ""
        return all_told

    def _would_tell(self, conversations: Sequence[Conversation], why: str) -> None:
        """Lets the log say, once, what Slack would have been told."""
        self.slack_says = why
        messages = [(one.folder, message) for one in conversations for message in (one.root, *one.replies)]
        for folder, message in messages:
            if (folder, message.key, message.digest) not in self._logged:
                log.info("%s, so not sent to #%s: %s", why, self.channel, message.text)
        self._logged = {(folder, message.key, message.digest) for folder, message in messages}

    def alive(self, now: datetime, *, at_once: bool = False) -> None:
        """Writes down, once a minute or `at_once`, that the watcher is alive, and until when all was told."""
        if not self._has_taken_over or (now - self._written < ALIVE_EVERY and not at_once):
            return
        written = Before(self.told_until, self.troubles.told, self.collected)
        try:
            self.telling.ledger.write()
            self.store.replace(paths.MONITOR_HEARTBEAT, written.to_json(now, self.slack_says or "well"))
            self._written, self._written_troubles, self.store_says = now, set(written.troubles), ""
        except StepError as error:
            self.store_says = str(error)
            log.warning("that the watcher is alive cannot be written down: %s", error)


def busy(look: Look) -> set[str]:
    """The DAGs of which a run goes on."""
    return {run.dag for run in look.runs if run.state not in ENDED} | {
        one.dag for one in look.backfills if {run.state for run in one.runs} - set(ENDED)
    }


def bare(run: Run) -> Run:
    """The run without all that steps, callbacks and people have handed over."""
    return replace(run, conf={}, notes=(), tasks=[replace(task, facts={}) for task in run.tasks])
