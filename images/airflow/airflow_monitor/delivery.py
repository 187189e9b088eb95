"""Delivers messages to Slack: posts those that are missing, edits those that changed, and posts nothing twice."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from step_contract.commit import open_artifact
from step_contract.errors import DataError, StepError, TransientError

from airflow_monitor.messages.block_kit import escape, truncate
from airflow_monitor.messages.formatting import Icon
from airflow_monitor.messages.message import Message, MessageThread, Picture
from airflow_monitor.slack_client import (
    FILE_ID,
    MESSAGE_GONE,
    MessageRef,
    MessageRejectedError,
    SlackClient,
    SlackUnavailableError,
)
from airflow_monitor.state import Delivery, DeliveryLog

log = logging.getLogger(__name__)
RESOLVED = f"\n{Icon.RESOLVED} _Resolved._"
PLAIN_TEXT_LENGTH, REASON_LENGTH = 2900, 500
PICTURE_ATTEMPTS = 10  # polls in which Slack may reject a picture that it has not processed yet
REJECTED = "rejected"  # replaces the ts of a message that Slack rejects permanently


class MessageDelivery:
    """Delivers through `client` and records it in `records`. `heartbeat` is called before each message."""

    def __init__(self, client: SlackClient, records: DeliveryLog, heartbeat: Callable[[], None] = lambda: None) -> None:
        self.client, self.records, self.heartbeat = client, records, heartbeat
        # Messages that this process has claimed, by what is known of their last attempt.
        self._not_posted: set[str] = set()
        self._outcome_unknown: set[str] = set()
        self._rejected_pictures: Counter[str] = Counter()

    def deliver(self, thread: MessageThread) -> bool:
        """Bring a message and its replies up to date. If Slack rejects the message, its replies stand alone in the channel.

        The reply that the message `announces` is omitted if it was posted with that content, unless the reply shows a picture.

        Returns:
            False if some of it is not delivered: another monitor may be delivering it, or a picture cannot be read now.

        Raises:
            SlackUnavailableError: the rest cannot be delivered now.
        """
        directory = thread.directory
        if not self.records.is_readable(directory):
            self.records.refresh(directory)
        root = self._deliver(directory, thread.root, None)
        if root is None:
            return False
        replies: list[Delivery | None] = []
        for planned in thread.replies:
            reply = self._add_images(directory, planned)
            if reply.key == root.announces and reply == planned:
                continue
            if root.ts == REJECTED:
                replies.append(self._deliver(directory, reply.with_title(thread.title), None))
            else:
                replies.append(self._deliver(directory, reply, root))
        current = {thread.root.key, *(reply.key for reply in thread.replies)}
        for key, delivery in list(self.records.get(directory).items()):
            if delivery.resolvable and delivery.ts and key not in current:
                self._edit(directory, Message(key, delivery.text + RESOLVED), delivery)
        return None not in replies

    def _deliver(self, directory: str, message: Message, root: Delivery | None) -> Delivery | None:
        """Return the record of the message; None if it is not delivered, as described at `deliver`."""
        self.heartbeat()
        delivery = self.records.get(directory).get(message.key)
        if delivery and not delivery.is_claim:
            if delivery.digest != message.digest and not message.picture:
                delivery = self._edit(directory, message, delivery)
            return delivery
        id, now = f"{directory}/{message.key}", datetime.now(UTC)
        if delivery is None:
            if not self.records.claim(directory, message.key):
                self.records.invalidate(directory)
                return None
            delivery = self.records.get(directory)[message.key]
            if self.records.is_readable(directory):
                self._not_posted.add(id)
            elif ref := self._find(message, id, delivery, root):
                return self._adopt(directory, message, ref, delivery.claimed_at, is_root=root is None)
        elif id not in self._not_posted or not delivery.is_in_progress(now):
            # Another monitor may have posted what was claimed long ago.
            if delivery.is_in_progress(now) and id not in self._outcome_unknown:
                self.records.invalidate(directory)
                return None
            if ref := self._find(message, id, delivery, root):
                return self._adopt(directory, message, ref, delivery.claimed_at, is_root=root is None)
        try:
            return self._post(directory, message, id, delivery, root)
        except SlackUnavailableError as error:
            if error.outcome_unknown:
                self._not_posted.discard(id)
                self._outcome_unknown.add(id)
            raise

    def _add_images(self, directory: str, message: Message) -> Message:
        """Return the message with those of its pictures that were uploaded."""
        for key in message.images:
            picture = self.records.get(directory).get(key)
            if picture and re.fullmatch(FILE_ID, picture.ts):
                message = message.with_image(picture.ts, picture.text.replace("`", ""))
        return message

    def _find(self, message: Message, id: str, claim: Delivery, root: Delivery | None) -> MessageRef | None:
        """Return the message that belongs to a claim, if Slack has it."""
        since = datetime.fromisoformat(claim.claimed_at).timestamp()
        return self.client.find(id, message.picture.file_name if message.picture else None, _ref(root), since)

    def _adopt(self, directory: str, message: Message, ref: MessageRef, claimed_at: str, *, is_root: bool) -> Delivery:
        """Return the record of a message that an earlier monitor posted; edit it if it is the root, whose status changes.

        A reply stays as it is until its content changes: the earlier monitor may have known more, such as a failure's reason.
        """
        if is_root and not message.picture:
            return self._edit(directory, message, Delivery(ref.channel, ref.ts, claimed_at=claimed_at, announces=ref.announces))
        return self._record(directory, message, ref, claimed_at)

    def _post(self, directory: str, message: Message, id: str, claim: Delivery, root: Delivery | None) -> Delivery | None:
        thread = _ref(root)
        try:
            if message.picture:
                data = _read_picture(message.picture)
                ref = self.client.upload(message.picture.file_name, data, message.notification, thread)
            else:
                ref = self.client.post(id, message.notification, message.blocks, thread, message.broadcast, message.announces)
        except TransientError as error:
            log.warning("Cannot read the picture, retrying later: id=%s: %s", id, error)
            return None
        except StepError as error:
            log.error("Cannot upload the picture: id=%s: %s", id, error)
            ref = MessageRef(thread.channel if thread else "", REJECTED)
        except MessageRejectedError as error:
            log.error("%s; posting it as plain text: id=%s", error, id)
            if message.picture:
                message = replace(message, text=f"{message.text} cannot be shown: {escape(str(error), REASON_LENGTH)}")
            # If a person has deleted the root, the reply goes to the channel.
            ref = self._post_plain_text(message, id, None if error.error in MESSAGE_GONE else thread)
            if message.images:
                # Slack rejects a picture that it has not processed yet: the next poll adds it.
                message = replace(message, blocks=())
        return self._record(directory, message, ref, claim.claimed_at)

    def _post_plain_text(self, message: Message, id: str, thread: MessageRef | None) -> MessageRef:
        try:
            return self.client.post(
                id, truncate(message.text, PLAIN_TEXT_LENGTH), (), thread, message.broadcast, message.announces
            )
        except MessageRejectedError as error:
            log.error("%s; giving up: id=%s", error, id)
            return MessageRef(thread.channel if thread else self.client.channel, REJECTED)

    def _edit(self, directory: str, message: Message, delivery: Delivery) -> Delivery:
        if delivery.ts == REJECTED:
            return delivery
        id, ref = f"{directory}/{message.key}", MessageRef(delivery.channel, delivery.ts, delivery.announces)
        try:
            try:
                is_there = self.client.update(ref, id, message.notification, message.blocks)
            except MessageRejectedError as error:
                if message.images and self._rejected_pictures[id] < PICTURE_ATTEMPTS:
                    # Slack may not have processed the picture yet: the next poll tries again.
                    self._rejected_pictures[id] += 1
                    return delivery
                log.error("%s; editing it as plain text: id=%s", error, id)
                is_there = self.client.update(ref, id, truncate(message.text, PLAIN_TEXT_LENGTH), ())
            if not is_there:  # who deleted it needs no notification of the same
                ref = ref._replace(announces=message.announces)
        except MessageRejectedError as error:
            log.error("%s; leaving it unchanged: id=%s", error, id)
        return self._record(directory, message, ref, delivery.claimed_at)

    def _record(self, directory: str, message: Message, ref: MessageRef, claimed_at: str) -> Delivery:
        for ids in (self._not_posted, self._outcome_unknown):
            ids.discard(f"{directory}/{message.key}")
        self._rejected_pictures.pop(f"{directory}/{message.key}", None)
        content = message.digest, message.notification
        delivery = Delivery(ref.channel, ref.ts, *content, claimed_at, message.resolvable, ref.announces)
        self.records.record(directory, message.key, delivery)
        return delivery


def _ref(delivery: Delivery | None) -> MessageRef | None:
    return MessageRef(delivery.channel, delivery.ts) if delivery else None


def _read_picture(picture: Picture) -> bytes:
    """Return the PNG of the artifact. Raises DataError if the artifact is damaged or has none, and what Store.read raises."""
    _, files = open_artifact(picture.manifest, fail_fast=True)
    data = next((data for name, data in files.items() if name.endswith(".png")), None)
    if data is None:
        raise DataError(f"{picture.manifest} has no picture: check the step that committed it")
    return data
