"""A client of one Slack channel through Airflow's Slack provider, with bounded timeouts and backoff."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from airflow.providers.slack.hooks.slack import SlackHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow_steps.callbacks import CONNECTION_ID, NO_CONNECTION
from airflow_steps.redaction import redact_text
from slack_sdk.errors import SlackApiError

from airflow_monitor.messages.block_kit import Block

log = logging.getLogger(__name__)

CONNECTION_VARIABLE = f"AIRFLOW_CONN_{CONNECTION_ID.upper()}"
TIMEOUT_SECONDS = 10
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 5.0, 300.0
MISCONFIGURED_BACKOFF_SECONDS = 60.0
MAX_HISTORY_PAGES = 20
CHANNEL_ID = r"[CGD][A-Z0-9]{8,}"
FILE_ID = r"F[A-Z0-9]{8,}"
EVENT_TYPE = "market_daily_message"

# What to do about errors that block every message until a person acts, by Slack's error code.
ADVICE = {
    "invalid_auth": "the token of the connection slack_conn is not valid: use the Bot User OAuth Token (xoxb-…) under "
    "OAuth & Permissions",
    "not_authed": "the connection slack_conn has no token: set its password to the Bot User OAuth Token (xoxb-…)",
    "account_inactive": "the bot was removed from the workspace: install the app again",
    "token_revoked": "the token was revoked: install the app again and use its new token",
    "token_expired": "the token has expired: issue a new one",
    "missing_scope": "the bot lacks a scope: add it under OAuth & Permissions and install the app again",
    "channel_not_found": "the channel does not exist or the bot cannot see it: create it and /invite the bot",
    "not_in_channel": "the bot is not a member of the channel: /invite it; the scope chat:write.public replaces that for the "
    "messages in a public channel, but neither for pictures nor for the channel's history",
    "is_archived": "the channel is archived: set slack_channel to another one",
    "restricted_action": "the workspace does not allow the bot to post in the channel: ask a workspace owner",
    "ekm_access_denied": "the workspace does not allow the bot to post in the channel: ask a workspace owner",
}
# Those of them that a bot gets for uploads although it may post messages, as one with chat:write.public that is no member.
UPLOAD_DENIED = ("missing_scope", "not_in_channel", "channel_not_found", "restricted_action")
MESSAGE_GONE = ("message_not_found", "cant_update_message", "edit_window_closed", "thread_not_found")
RATE_LIMITED = ("ratelimited", "rate_limited")
TRANSIENT = (
    "internal_error",
    "fatal_error",
    "service_unavailable",
    "request_timeout",
    "team_added_to_org",
)


class SlackUnavailableError(Exception):
    """Slack does not accept messages at the moment; retry after `retry_after` seconds.

    Attributes:
        error: Slack's error code, if a person has to act on it.
        outcome_unknown: Slack may have executed the call, as only its response is missing.
    """

    error = ""

    def __init__(self, reason: str, retry_after: float, outcome_unknown: bool = False) -> None:
        super().__init__(reason)
        self.retry_after, self.outcome_unknown = retry_after, outcome_unknown


class SlackNotConnectedError(SlackUnavailableError):
    """Airflow has no connection to Slack."""


class SlackBackoffError(SlackUnavailableError):
    """No call was sent, as an earlier one failed or was rate-limited a moment ago."""


class SlackMisconfiguredError(SlackUnavailableError):
    """Slack rejects the call until a person corrects the token, the scopes or the channel."""


class MessageRejectedError(Exception):
    """Slack rejects this message permanently; `error` is Slack's error code."""

    def __init__(self, error: str, reason: str) -> None:
        super().__init__(reason)
        self.error = error


class MessageRef(NamedTuple):
    """A message in Slack, or an uploaded file.

    Attributes:
        channel: the channel's id.
        ts: the message's timestamp, which identifies it there, or the file's id.
        announces: what `post` was given.
    """

    channel: str
    ts: str
    announces: str = ""


class SlackClient:
    """The channel `channel` (a name or an id) through Airflow's connection `slack_conn`.

    `min_interval` is the minimum number of seconds between two calls: Slack accepts one message a second in a channel.
    """

    def __init__(self, channel: str, min_interval: float = 1.0) -> None:
        self.channel, self.min_interval = channel, min_interval
        self._blocked_until, self._backoff, self._last_call = 0.0, MIN_BACKOFF_SECONDS, 0.0
        self._channel_id = channel if re.fullmatch(CHANNEL_ID, channel) else ""
        self._hook: SlackHook | None = None

    def _web_client(self) -> Any:
        try:
            if self._hook is None:
                self._hook = SlackHook(slack_conn_id=CONNECTION_ID, timeout=TIMEOUT_SECONDS, retry_handlers=[])
            return self._hook.client
        except AirflowNotFoundException as error:
            raise SlackNotConnectedError(explain_missing_connection(), MAX_BACKOFF_SECONDS) from error

    def check_connection(self) -> None:
        """Log what is missing if there is no connection to Slack. Sends no request."""
        try:
            self._web_client()
        except SlackNotConnectedError as error:
            log.warning("Messages will only be logged: %s", error)
        except Exception as error:
            log.warning("The connection to Slack is invalid (%s: %s)", type(error).__name__, redact_text(str(error)))

    def call(self, method: str, **arguments: Any) -> Any:
        """Return Slack's response to `method` of its web client. Raises SlackUnavailableError or MessageRejectedError."""
        if (wait := self._blocked_until - time.monotonic()) > 0:
            raise SlackBackoffError(f"not calling Slack for another {wait:.0f} s, after an error or a rate limit", wait)
        time.sleep(max(0.0, self._last_call + self.min_interval - time.monotonic()))
        try:
            response = getattr(self._web_client(), method)(**arguments)
        except SlackNotConnectedError:
            raise
        except SlackApiError as error:
            raise self._classify(error) from error
        except Exception as error:
            reason = f"Slack does not respond ({type(error).__name__}: {redact_text(str(error))})"
            raise self._back_off(reason, outcome_unknown=True) from error
        self._last_call, self._backoff = time.monotonic(), MIN_BACKOFF_SECONDS
        return response

    def _back_off(
        self,
        reason: str,
        seconds: float | None = None,
        kind: type[SlackUnavailableError] = SlackUnavailableError,
        outcome_unknown: bool = False,
    ) -> SlackUnavailableError:
        """Block calls for `seconds`, or exponentially longer each time; return the error to raise."""
        wait = seconds if seconds is not None else self._backoff
        self._backoff = min(self._backoff * 2, MAX_BACKOFF_SECONDS)
        self._blocked_until = time.monotonic() + wait
        return kind(reason, wait, outcome_unknown)

    def _classify(self, error: SlackApiError) -> Exception:
        response: Any = error.response
        status, headers = getattr(response, "status_code", 200), getattr(response, "headers", {}) or {}
        data = response.data if isinstance(getattr(response, "data", None), dict) else {}
        code = str(data.get("error") or "")
        if status == 429 or code in RATE_LIMITED:
            seconds = parse_retry_after({name.lower(): value for name, value in headers.items()}.get("retry-after"))
            return self._back_off(f"Slack's rate limit is exceeded: retrying after {seconds:.0f} s", seconds)
        if status >= 500 or code in TRANSIENT:
            return self._back_off(f"Slack failed with a server error ({status} {code})", outcome_unknown=True)
        if code in ADVICE:
            needed = f" ({data['needed']})" if data.get("needed") else ""
            self._hook = None  # the next call reads the connection again
            reason = f"{code}{needed}: {ADVICE[code]}; then run make slack-test"
            misconfigured = self._back_off(reason, MISCONFIGURED_BACKOFF_SECONDS, SlackMisconfiguredError)
            misconfigured.error = code
            return misconfigured
        if not code:
            return self._back_off(
                f"the response did not come from Slack (status {status}); a proxy may have answered", outcome_unknown=True
            )
        return MessageRejectedError(code, f"Slack rejects the message: {code} {data.get('errors') or ''}".strip())

    def post(
        self, id: str, text: str, blocks: Sequence[Block], thread: MessageRef | None, broadcast: bool, announces: str = ""
    ) -> MessageRef:
        """Post a message, or a reply to `thread`.

        Args:
            id: the message's own id, stored in its metadata so that `find` can find it.
            broadcast: the channel shows the reply too.
            announces: stored in the metadata too, and not changed by edits.
        """
        arguments: dict[str, Any] = {
            "channel": thread.channel if thread else self.channel,
            "text": text,
            "metadata": _metadata(id, announces),
            "unfurl_links": False,
            "blocks": list(blocks) or None,
        }
        if thread:
            arguments |= {"thread_ts": thread.ts, "reply_broadcast": broadcast}
        response = self.call("chat_postMessage", **arguments)
        self._channel_id = response["channel"]
        return MessageRef(response["channel"], response["ts"], announces)

    def update(self, message: MessageRef, id: str, text: str, blocks: Sequence[Block]) -> bool:
        """Edit a message; return False if a person has deleted it: it stays deleted."""
        metadata = _metadata(id, message.announces)
        try:
            self.call("chat_update", channel=message.channel, ts=message.ts, text=text, blocks=list(blocks), metadata=metadata)
        except MessageRejectedError as error:
            if error.error not in MESSAGE_GONE:
                raise
            return False
        return True

    def upload(self, name: str, data: bytes, text: str, thread: MessageRef | None) -> MessageRef:
        """Upload a file as a message, or into a thread; return the channel and the file's id.

        Raises MessageRejectedError if the bot may not upload files, though it may post messages.
        """
        try:
            channel = thread.channel if thread else self._channel_id or self.find_channel_id()
            if not re.fullmatch(CHANNEL_ID, channel):
                reason = f"cannot upload {name}: the id of the channel {channel} is not known without the scope channels:read"
                raise MessageRejectedError("unknown_channel_id", reason)
            arguments = {"filename": name, "title": name, "channel": channel, "initial_comment": text}
            response = self.call("files_upload_v2", content=data, thread_ts=thread.ts if thread else None, **arguments)
        except SlackMisconfiguredError as error:
            if error.error not in UPLOAD_DENIED:
                raise
            self._blocked_until = 0.0
            raise MessageRejectedError(error.error, f"cannot upload {name}: {error}") from error
        files = response.get("files") or [{}]
        return MessageRef(channel, str(files[0].get("id") or name))

    def find(self, id: str, file_name: str | None, thread: MessageRef | None, since: float) -> MessageRef | None:
        """Return the message that was posted as `id`, or that has a file of that name.

        Args:
            thread: search the replies to this message instead of the channel.
            since: Unix time from which the channel is searched.

        Returns:
            None if there is no such message, or if the bot may not read the history.
        """
        try:
            channel = thread.channel if thread else self._channel_id or self.find_channel_id()
            for message in self._read_messages(channel, thread, since):
                payload = (message.get("metadata") or {}).get("event_payload") or {}
                if payload.get("id") == id:
                    return MessageRef(channel, str(message["ts"]), str(payload.get("announces") or ""))
                for file in message.get("files") or ():
                    if file_name and file.get("name") == file_name:
                        return MessageRef(channel, str(file.get("id") or message["ts"]))
        except (SlackMisconfiguredError, MessageRejectedError) as error:
            self._blocked_until = 0.0
            log.warning("Cannot search the history, the message may be posted twice: id=%s: %s", id, error)
        return None

    def _read_messages(self, channel: str, thread: MessageRef | None, since: float) -> Iterator[Any]:
        """Yield a thread's replies, or the channel's messages from a minute before `since`."""
        method, selection = "conversations_history", {"channel": channel, "oldest": f"{since - 60:.6f}"}
        if thread:
            method, selection = "conversations_replies", {"channel": channel, "ts": thread.ts}
        cursor = ""
        for _ in range(MAX_HISTORY_PAGES):
            response = self.call(method, **selection, limit=200, include_all_metadata=True, cursor=cursor)
            yield from response["messages"]
            cursor = (response.get("response_metadata") or {}).get("next_cursor") or ""
            if not cursor:
                return

    def find_channel_id(self) -> str:
        """Return the id of the channel; its name if no channel has that name."""
        try:
            return self._search_channels("public_channel,private_channel")
        except SlackMisconfiguredError:  # private channels need a scope of their own
            self._blocked_until = 0.0
            return self._search_channels("public_channel")

    def _search_channels(self, types: str) -> str:
        cursor = ""
        while True:
            response = self.call("conversations_list", limit=1000, cursor=cursor, exclude_archived=True, types=types)
            for channel in response["channels"]:
                if channel["name"] == self.channel.lstrip("#"):
                    return str(channel["id"])
            cursor = (response.get("response_metadata") or {}).get("next_cursor") or ""
            if not cursor:
                return self.channel


def explain_missing_connection(environment: Mapping[str, str] = os.environ) -> str:
    """Return why there is no connection to Slack, and what to do."""
    if environment.get(CONNECTION_VARIABLE):
        return (
            f"{CONNECTION_VARIABLE} (in a cluster the secret slack) is no connection with a token: set it to "
            '{"conn_type": "slack", "password": "xoxb-…"}'
        )
    return (
        f"{NO_CONNECTION}: set {CONNECTION_VARIABLE}, in a cluster in the secret slack; a connection made in Airflow's UI does "
        "not reach the monitor, which has no access to the database; see docs/slack.md"
    )


def _metadata(id: str, announces: str) -> dict[str, Any]:
    return {"event_type": EVENT_TYPE, "event_payload": {"id": id} | ({"announces": announces} if announces else {})}


def parse_retry_after(value: Any) -> float:
    """Return the seconds in a Retry-After header, within bounds; MIN_BACKOFF_SECONDS if it is not a number."""
    text = value[0] if isinstance(value, list) and value else value
    try:
        return float(min(max(int(text), 1), MAX_BACKOFF_SECONDS))
    except (TypeError, ValueError):
        return MIN_BACKOFF_SECONDS
