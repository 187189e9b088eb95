"""Brings a channel to what it should say: what is missing is posted, what has changed is edited, nothing is said twice."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from step_contract.commit import open_artifact
from step_contract.errors import DataError, StepError

from airflow_monitor.messages.block_kit import whole
from airflow_monitor.messages.message import Conversation, Message
from airflow_monitor.slack_client import GONE, Refused, Slack, Unavailable
from airflow_monitor.state import Ledger, Told

log = logging.getLogger(__name__)
OVER = "\n:white_check_mark: _That is over._"
PLAIN = 2900
LOST = "refused"  # in place of the ts of a message that Slack never takes


class Telling:
    """Tells `slack`, and keeps in `ledger` what it told. `alive` is called before each message."""

    def __init__(self, slack: Slack, ledger: Ledger, alive: Callable[[], None] = lambda: None) -> None:
        self.slack, self.ledger, self.alive = slack, ledger, alive
        # Of this process's claims those whose message surely was not sent.
        self._unsent: set[str] = set()
        # And those of which only Slack knows.
        self._unsure: set[str] = set()

    def tell(self, conversation: Conversation) -> bool:
        """Brings one message and its thread up to date; False where another watcher may just be telling some of it.

        Raises Unavailable where Slack cannot be told now.
        """
        folder = conversation.folder
        root = self._tell(folder, conversation.root, None)
        if root is None or root.ts == LOST:
            return root is not None
        told = [self._tell(folder, reply, root) for reply in conversation.replies]
        wanted = {conversation.root.key, *(reply.key for reply in conversation.replies)}
        for key, warned in list(self.ledger.known(folder).items()):
            # A warning whose reason has passed says so.
            if key not in wanted and key.startswith("waits.") and warned.ts and not warned.text.endswith(OVER):
                self._edit(folder, Message(key, warned.text + OVER), warned)
        return None not in told

    def _tell(self, folder: str, message: Message, root: Told | None) -> Told | None:
        """The message as it was told; None where another watcher is telling it."""
        self.alive()
        told = self.ledger.known(folder).get(message.key)
        if told and not told.is_claim:
            if told.digest != message.digest and not message.picture:
                told = self._edit(folder, message, told)
            return told
        id, now = f"{folder}/{message.key}", datetime.now(UTC)
        if told is None:
            if not self.ledger.claim(folder, message.key):
                self.ledger.forget(folder)
                return None
            told = self.ledger.known(folder)[message.key]
            self._unsent.add(id)
        elif id not in self._unsent or not told.is_fresh(now):
            # What was claimed long ago another watcher may have told meanwhile.
            if told.is_fresh(now) and id not in self._unsure:
                self.ledger.forget(folder)
                return None
            if there := self._find(message, id, told, root):
                return self._keep(folder, message, there)
        try:
            return self._post(folder, message, id, told, root)
        except Unavailable as error:
            if error.unsure:
                self._unsent.discard(id)
                self._unsure.add(id)
            raise

    def _find(self, message: Message, id: str, claim: Told, root: Told | None) -> Told | None:
        """What was told by a claim of which nobody knows whether it was."""
        since = datetime.fromisoformat(claim.claimed).timestamp()
        thread = (root.channel, root.ts) if root else None
        found = self.slack.find(id, _file_name(message), thread, since)
        return Told(*found, claimed=claim.claimed) if found else None

    def _post(self, folder: str, message: Message, id: str, claim: Told, root: Told | None) -> Told:
        thread = (root.channel, root.ts) if root else None
        try:
            if message.picture and thread:
                where = thread[0], self.slack.upload(_file_name(message), _picture(message.picture), message.shown, thread)
            else:
                where = self.slack.post(id, message.shown, message.blocks, thread, message.broadcast)
        except StepError as error:
            log.error("the picture cannot be sent: %s", error)
            where = root.channel if root else "", LOST
        except Refused as refused:
            log.error("%s: it is sent as plain text: %s", refused, id)
            # Where somebody has deleted the message that it replies to, the channel itself has to hear of it.
            where = self._post_plainly(message, id, None if refused.error in GONE else thread)
        return self._keep(folder, message, Told(*where, claimed=claim.claimed))

    def _post_plainly(self, message: Message, id: str, thread: tuple[str, str] | None) -> tuple[str, str]:
        try:
            return self.slack.post(id, whole(message.text, PLAIN), (), thread, message.broadcast)
        except Refused as refused:
            log.error("%s: given up: %s", refused, id)
            return (thread[0] if thread else self.slack.channel), LOST

    def _edit(self, folder: str, message: Message, told: Told) -> Told:
        if told.ts == LOST:
            return told
        id = f"{folder}/{message.key}"
        try:
            try:
                self.slack.update(told.channel, told.ts, id, message.shown, message.blocks)
            except Refused as refused:
                log.error("%s: it is changed to plain text: %s", refused, id)
                self.slack.update(told.channel, told.ts, id, whole(message.text, PLAIN), ())
        except Refused as refused:
            log.error("%s: it stays as it was: %s", refused, id)
        return self._keep(folder, message, told)

    def _keep(self, folder: str, message: Message, told: Told) -> Told:
        for ids in (self._unsent, self._unsure):
            ids.discard(f"{folder}/{message.key}")
        known = Told(told.channel, told.ts, message.digest, message.shown, told.claimed)
        self.ledger.keep(folder, message.key, known)
        return known


def _file_name(message: Message) -> str:
    """What a picture is called in Slack; of all in a thread, one has this name."""
    return f"{message.key.removeprefix('picture.')}.png"


def _picture(manifest: str) -> bytes:
    """The picture of the artifact; raises DataError where it has none or is damaged."""
    _, files = open_artifact(manifest)
    found = next((data for name, data in files.items() if name.endswith(".png")), None)
    if found is None:
        raise DataError(f"{manifest} has no picture")
    return found
