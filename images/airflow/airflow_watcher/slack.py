"""The way to Slack, by its official provider: bounded in time, never asked again before it said it may be."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

from airflow.providers.slack.hooks.slack import SlackHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow_steps.redaction import redact
from slack_sdk.errors import SlackApiError

from airflow_watcher.blocks import Block

log = logging.getLogger(__name__)

CONNECTION = "slack_conn"
TIMEOUT_SECONDS = 10
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0
PAGES = 20  # of messages that are looked through for one
MENDED = 60.0  # between two looks whether a person has mended it
EVENT = "market_daily_message"

# What a person has to mend, by Slack's name for it; no message gets through before.
ADVICE = {
    "invalid_auth": "the token of the connection slack_conn is not valid: take the one under OAuth & Permissions (xoxb-…)",
    "not_authed": "the connection slack_conn has no token: its password is the bot's token (xoxb-…)",
    "account_inactive": "the bot was removed from the workspace: install it again",
    "token_revoked": "the token was revoked: install the bot again, and take its new token",
    "token_expired": "the token has expired: take a new one",
    "missing_scope": "the bot lacks a scope: add it under OAuth & Permissions, and install the bot again",
    "channel_not_found": "there is no such channel, or the bot cannot see it: create it, and /invite the bot",
    "not_in_channel": "the bot is not in the channel: /invite it",
    "is_archived": "the channel is archived: choose another with slack_channel",
    "restricted_action": "the workspace does not let the bot post there: ask its owner",
    "ekm_access_denied": "the workspace does not let the bot post there: ask its owner",
}
GONE = ("message_not_found", "cant_update_message", "edit_window_closed", "thread_not_found")
THROTTLED = ("ratelimited", "rate_limited")
PASSING = (
    "internal_error",
    "fatal_error",
    "service_unavailable",
    "request_timeout",
    "team_added_to_org",
)


class Unavailable(Exception):
    """Slack cannot be told now; it will be tried again, not before `seconds` have passed.

    `unsure`: it may have done what it was asked, as only its answer is missing.
    """

    def __init__(self, why: str, seconds: float, unsure: bool = False) -> None:
        super().__init__(why)
        self.seconds, self.unsure = seconds, unsure


class NotConnected(Unavailable):
    """There is no connection to Slack."""


class Waiting(Unavailable):
    """Slack is not asked: it was found away, or asked for a pause, a moment ago."""


class Misconfigured(Unavailable):
    """Slack takes nothing until a person has mended token, scopes or channel."""


class Refused(Exception):
    """Slack does not take this message, whenever it comes; `self.error` is Slack's word for why."""

    def __init__(self, error: str, why: str) -> None:
        super().__init__(why)
        self.error = error


class Slack:
    """The channel `channel` through the connection `slack_conn`."""

    def __init__(self, channel: str, connection: str = CONNECTION, pace: float = 1.0) -> None:
        self.channel, self.connection, self.pace = channel, connection, pace
        self._until, self._pause, self._last = 0.0, FIRST_PAUSE, 0.0
        self._channel_id = channel if re.fullmatch(r"[CGD][A-Z0-9]{8,}", channel) else ""
        self._hook: SlackHook | None = None

    def _client(self) -> Any:
        try:
            if self._hook is None:
                self._hook = SlackHook(slack_conn_id=self.connection, timeout=TIMEOUT_SECONDS, retry_handlers=[])
            return self._hook.client
        except AirflowNotFoundException as error:
            raise NotConnected(f"there is no connection {self.connection}", LONGEST_PAUSE) from error

    def call(self, method: str, **arguments: Any) -> Any:
        """Slack's answer to `method` of its client. Raises Unavailable or Refused."""
        if (wait := self._until - time.monotonic()) > 0:
            raise Waiting(f"Slack is not asked for another {wait:.0f} s", wait)
        # A message a second and channel is what Slack takes.
        time.sleep(max(0.0, self._last + self.pace - time.monotonic()))
        try:
            answer = getattr(self._client(), method)(**arguments)
        except NotConnected:
            raise
        except SlackApiError as error:
            raise self._judged(error) from error
        except Exception as error:
            raise self._later(f"Slack does not answer ({type(error).__name__}: {redact(str(error))})", unsure=True) from error
        self._last, self._pause = time.monotonic(), FIRST_PAUSE
        return answer

    def _later(
        self, why: str, seconds: float | None = None, kind: type[Unavailable] = Unavailable, unsure: bool = False
    ) -> Unavailable:
        pause = seconds if seconds is not None else self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        self._until = time.monotonic() + pause
        return kind(why, pause, unsure)

    def _judged(self, error: SlackApiError) -> Exception:
        answer: Any = error.response
        status, headers = getattr(answer, "status_code", 200), getattr(answer, "headers", {}) or {}
        data = answer.data if isinstance(getattr(answer, "data", None), dict) else {}
        said = str(data.get("error") or "")
        if status == 429 or said in THROTTLED:
            seconds = _seconds({name.lower(): value for name, value in headers.items()}.get("retry-after"))
            return self._later(f"Slack asks to wait {seconds:.0f} s", seconds)
        if status >= 500 or said in PASSING:
            return self._later(f"Slack has a fault of its own ({status} {said})", unsure=True)
        if said in ADVICE:
            needed = f" ({data['needed']})" if data.get("needed") else ""
            self._hook = None  # the next time with what the connection says then
            return self._later(f"{said}{needed}: {ADVICE[said]}; then make slack-test", MENDED, Misconfigured)
        if not said:
            return self._later(f"what answers is not Slack ({status})", unsure=True)
        return Refused(said, f"Slack refuses the message: {said} {data.get('errors') or ''}".strip())

    def post(
        self, id: str, text: str, blocks: Sequence[Block], thread: tuple[str, str] | None, broadcast: bool
    ) -> tuple[str, str]:
        """Posts a message, a reply where `thread` is its message's channel and ts; returns its channel and ts."""
        metadata = {"event_type": EVENT, "event_payload": {"id": id}}
        more: dict[str, Any] = {"thread_ts": thread[1], "reply_broadcast": broadcast} if thread else {}
        channel = thread[0] if thread else self.channel
        plain: dict[str, Any] = {"channel": channel, "text": text, "metadata": metadata, "unfurl_links": False}
        answer = self.call("chat_postMessage", **plain, blocks=list(blocks) or None, **more)
        self._channel_id = answer["channel"]
        return answer["channel"], answer["ts"]

    def update(self, channel: str, ts: str, id: str, text: str, blocks: Sequence[Block]) -> None:
        """Brings a message up to date; one that somebody has deleted stays away."""
        metadata = {"event_type": EVENT, "event_payload": {"id": id}}
        try:
            self.call("chat_update", channel=channel, ts=ts, text=text, blocks=list(blocks), metadata=metadata)
        except Refused as refused:
            if refused.error not in GONE:
                raise

    def upload(self, name: str, data: bytes, text: str, thread: tuple[str, str]) -> str:
        """Sends a file into a thread; returns the file's id."""
        answer = self.call(
            "files_upload_v2",
            content=data,
            filename=name,
            title=name,
            channel=thread[0],
            thread_ts=thread[1],
            initial_comment=text,
        )
        files = answer.get("files") or [{}]
        return str(files[0].get("id") or name)

    def find(self, id: str, name: str | None, thread: tuple[str, str] | None, since: float) -> tuple[str, str] | None:
        """The channel and ts of a message that was posted as `id`, or has a file called `name`; None where there is none, or
        where the bot may not look. `since`: seconds of the epoch. `thread`: among that message's replies.
        """
        try:
            channel = thread[0] if thread else self._channel_id or self._look_up()
            for message in self._messages(channel, thread, since):
                payload = (message.get("metadata") or {}).get("event_payload") or {}
                if payload.get("id") == id or (name and name in [file.get("name") for file in message.get("files") or ()]):
                    return channel, str(message["ts"])
        except (Misconfigured, Refused) as error:
            self._until = 0.0
            log.warning("whether %s was told cannot be looked up, so it may be told twice: %s", id, error)
        return None

    def _messages(self, channel: str, thread: tuple[str, str] | None, since: float) -> Iterator[Any]:
        """A thread's replies, or the channel's messages since a minute before `since`."""
        method, where = "conversations_history", {"channel": channel, "oldest": f"{since - 60:.6f}"}
        if thread:
            method, where = "conversations_replies", {"channel": channel, "ts": thread[1]}
        cursor = ""
        for _ in range(PAGES):
            found = self.call(method, **where, limit=200, include_all_metadata=True, cursor=cursor)
            yield from found["messages"]
            cursor = (found.get("response_metadata") or {}).get("next_cursor") or ""
            if not cursor:
                return

    def _look_up(self) -> str:
        """The channel's id, by its name; as it was given where there is none of that name."""
        try:
            return self._look_among("public_channel,private_channel")
        except Misconfigured:  # the right to see private ones is another
            self._until = 0.0
            return self._look_among("public_channel")

    def _look_among(self, types: str) -> str:
        cursor = ""
        while True:
            answer = self.call("conversations_list", limit=1000, cursor=cursor, exclude_archived=True, types=types)
            for one in answer["channels"]:
                if one["name"] == self.channel.lstrip("#"):
                    return str(one["id"])
            cursor = (answer.get("response_metadata") or {}).get("next_cursor") or ""
            if not cursor:
                return self.channel


def _seconds(retry_after: Any) -> float:
    """The wait that Slack asks for, within bounds, whatever it says."""
    text = retry_after[0] if isinstance(retry_after, list) and retry_after else retry_after
    try:
        return float(min(max(int(text), 1), LONGEST_PAUSE))
    except (TypeError, ValueError):
        return FIRST_PAUSE
