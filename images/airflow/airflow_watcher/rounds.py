"""The watcher's rounds: look at Airflow, say what should be told, tell what is not told yet."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from airflow_steps.metrics import gauge
from step_contract import paths
from step_contract.exit_codes import StepError
from step_contract.store import Store

from airflow_watcher import backfill_messages, run_messages
from airflow_watcher.airflow_api import Airflow, Unreachable
from airflow_watcher.looking import Eyes, Look
from airflow_watcher.message import Conversation, Limits, Pages
from airflow_watcher.numbers import last_collected, numbers
from airflow_watcher.slack import NotConnected, Unavailable
from airflow_watcher.telling import Telling
from airflow_watcher.troubles import Troubles, of_api, of_health, of_schedules

log = logging.getLogger(__name__)
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
        self.eyes, self.telling, self.store, self.goes_on = Eyes(airflow, store), telling, store, goes_on
        self.channel, self.pages, self.limits = channel, pages, limits
        before = _before(store)
        # Where the last watcher had told everything; a first one does not tell of what was before it.
        self.told_until = datetime.fromisoformat(before["told_until"]) if before else now - FIRST_LOOK
        self.troubles = Troubles({name: datetime.fromisoformat(at) for name, at in before.get("troubles", {}).items()})
        self.collected = date.fromisoformat(before["collected"]) if before.get("collected") else None
        self.slack_says, self.unsent, self._written = "", 0, now - ALIVE_EVERY
        self._has_seen = False
        self._logged: set[tuple[str, str, str]] = set()

    def round(self, now: datetime) -> None:
        """One look and what follows from it; raises nothing but faults of its own."""
        conversations: list[Conversation] = []
        look = None
        try:
            look = self.eyes.look(self.told_until)
            found = [*of_health(look.health, self.limits.grace), *of_schedules(look.dags, now)]
            conversations = self._about(look, now)
            self._has_seen = True
        except Unreachable as error:
            found = [of_api(str(error), self.limits.grace, self._has_seen)]
        troubles, over = self.troubles.look(found, self.channel, now, blind=look is None)
        if self._tell([*troubles, *conversations]) and look:
            for name in over:
                self.troubles.settle(name)
            self.told_until = now - OVERLAP
            self.telling.ledger.drop({one.folder for one in conversations})
        if look:
            self.collected = last_collected(look.runs, self.collected)
            for name, value in numbers(look, now, self.limits, self.collected):
                gauge(name, value)
        self.alive(now)

    def _about(self, look: Look, now: datetime) -> list[Conversation]:
        runs = [run_messages.about(run, self.channel, now, self.pages, self.limits) for run in (*look.runs, *look.deleted)]
        return runs + [backfill_messages.about(backfill, self.channel, self.pages) for backfill in look.backfills]

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
        told |= {"collected": self.collected and self.collected.isoformat()}
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
