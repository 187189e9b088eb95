"""A client of one Slack channel through Airflow's Slack provider, with bounded timeouts and backoff."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from airflow.providers.slack.hooks.slack import SlackHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow_steps.redaction import redact
from slack_sdk.errors import SlackApiError

from airflow_monitor.messages.block_kit import Block

log = logging.getLogger(__name__)

CONNECTION_ID = "slack_conn"
TIMEOUT_SECONDS = 10
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 5.0, 300.0
MISCONFIGURED_BACKOFF_SECONDS = 60.0
MAX_HISTORY_PAGES = 20
CHANNEL_ID = r"[CGD][A-Z0-9]{8,}"
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
    "not_in_channel": "the bot is not a member of the channel: /invite it",
    "is_archived": "the channel is archived: set slack_channel to another one",
    "restricted_action": "the workspace does not allow the bot to post in the channel: ask a workspace owner",
    "ekm_access_denied": "the workspace does not allow the bot to post in the channel: ask a workspace owner",
}
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

    `outcome_unknown`: Slack may have executed the call, as only its response is missing.
    """

    def __init__(self, reason: str, retry_after: float, outcome_unknown: bool = False) -> None:
        super().__init__(reason)
        self.retry_after, self.outcome_unknown = retry_after, outcome_unknown


class SlackNotConnectedError(SlackUnavailableError):
    """Airflow has no connection to Slack."""


class SlackBackoffError(SlackUnavailableError):
    """No call was sent, as an earlier one failed or was rate-limited a moment ago."""


class SlackMisconfiguredError(SlackUnavailableError):
    """Slack rejects every message until a person corrects the token, the scopes or the channel."""


class MessageRejectedError(Exception):
    """Slack rejects this message permanently; `error` is Slack's error code."""

    def __init__(self, error: str, reason: str) -> None:
        super().__init__(reason)
        self.error = error


class MessageRef(NamedTuple):
    """A message in Slack: the channel's id and the message's timestamp, which identifies it there."""

    channel: str
    ts: str


class SlackClient:
    """The channel `channel` (a name or an id) through the Airflow connection `connection_id`.

    `min_interval` is the minimum number of seconds between two calls: Slack accepts one message a second in a channel.
    """

    def __init__(self, channel: str, connection_id: str = CONNECTION_ID, min_interval: float = 1.0) -> None:
        self.channel, self.connection_id, self.min_interval = channel, connection_id, min_interval
        self._blocked_until, self._backoff, self._last_call = 0.0, MIN_BACKOFF_SECONDS, 0.0
        self._channel_id = channel if re.fullmatch(CHANNEL_ID, channel) else ""
        self._hook: SlackHook | None = None

    def _web_client(self) -> Any:
        try:
            if self._hook is None:
                self._hook = SlackHook(slack_conn_id=self.connection_id, timeout=TIMEOUT_SECONDS, retry_handlers=[])
            return self._hook.client
        except AirflowNotFoundException as error:
            raise SlackNotConnectedError(f"Airflow has no connection {self.connection_id}", MAX_BACKOFF_SECONDS) from error

    def call(self, method: str, **arguments: Any) -> Any:
        """Return Slack's response to `method` of its web client. Raises SlackUnavailableError or MessageRejectedError."""
        if (wait := self._blocked_until - time.monotonic()) > 0:
            raise SlackBackoffError(f"Slack is not called for another {wait:.0f} s, after an error or a rate limit", wait)
        time.sleep(max(0.0, self._last_call + self.min_interval - time.monotonic()))
        try:
            response = getattr(self._web_client(), method)(**arguments)
        except SlackNotConnectedError:
            raise
        except SlackApiError as error:
            raise self._classify(error) from error
        except Exception as error:
            reason = f"Slack does not respond ({type(error).__name__}: {redact(str(error))})"
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
            return self._back_off(reason, MISCONFIGURED_BACKOFF_SECONDS, SlackMisconfiguredError)
        if not code:
            return self._back_off(f"the response is not Slack's ({status})", outcome_unknown=True)
        return MessageRejectedError(code, f"Slack rejects the message: {code} {data.get('errors') or ''}".strip())

    def post(self, id: str, text: str, blocks: Sequence[Block], thread: MessageRef | None, broadcast: bool) -> MessageRef:
        """Post a message, or a reply to `thread`.

        Args:
            id: the message's own id, stored in its metadata so that `find` can find it.
            broadcast: the channel shows the reply too.
        """
        arguments: dict[str, Any] = {
            "channel": thread.channel if thread else self.channel,
            "text": text,
            "metadata": _metadata(id),
            "unfurl_links": False,
            "blocks": list(blocks) or None,
        }
        if thread:
            arguments |= {"thread_ts": thread.ts, "reply_broadcast": broadcast}
        response = self.call("chat_postMessage", **arguments)
        self._channel_id = response["channel"]
        return MessageRef(response["channel"], response["ts"])

    def update(self, message: MessageRef, id: str, text: str, blocks: Sequence[Block]) -> None:
        """Edit a message; one that a person has deleted stays deleted."""
        channel, ts = message
        try:
            self.call("chat_update", channel=channel, ts=ts, text=text, blocks=list(blocks), metadata=_metadata(id))
        except MessageRejectedError as error:
            if error.error not in MESSAGE_GONE:
                raise

    def upload(self, name: str, data: bytes, text: str, thread: MessageRef | None) -> MessageRef:
        """Upload a file as a message, or into a thread; return the channel and the file's id."""
        channel = thread.channel if thread else self._channel_id or self._find_channel_id()
        if not re.fullmatch(CHANNEL_ID, channel):
            reason = f"cannot upload {name}: the id of the channel {channel} is not known without the scope channels:read"
            raise MessageRejectedError("unknown_channel_id", reason)
        response = self.call(
            "files_upload_v2",
            content=data,
            filename=name,
            title=name,
            channel=channel,
            thread_ts=thread.ts if thread else None,
            initial_comment=text,
        )
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
            channel = thread.channel if thread else self._channel_id or self._find_channel_id()
            for message in self._read_messages(channel, thread, since):
                payload = (message.get("metadata") or {}).get("event_payload") or {}
                file_names = [file.get("name") for file in message.get("files") or ()]
                if payload.get("id") == id or (file_name and file_name in file_names):
                    return MessageRef(channel, str(message["ts"]))
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

    def _find_channel_id(self) -> str:
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


def _metadata(id: str) -> dict[str, Any]:
    return {"event_type": EVENT_TYPE, "event_payload": {"id": id}}


def parse_retry_after(value: Any) -> float:
    """Return the seconds in a Retry-After header, within bounds; MIN_BACKOFF_SECONDS if it is not a number."""
    text = value[0] if isinstance(value, list) and value else value
    try:
        return float(min(max(int(text), 1), MAX_BACKOFF_SECONDS))
    except (TypeError, ValueError):
        return MIN_BACKOFF_SECONDS
