"""Slack's Web API, as far as a bot that posts needs it: the methods by name, and who may call them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from slack_simulator.call import BOT, BOT_NAME, TEAM, USER, Answer, Call, Refused
from slack_simulator.reading import history, list_channels, replies
from slack_simulator.sending import permalink, post_message, update
from slack_simulator.uploads import complete_upload, upload_url


def auth_test(call: Call) -> Answer:
    """Says who the token belongs to."""
    names = {"team": "market-daily", "user": BOT_NAME, "team_id": TEAM, "user_id": USER, "bot_id": BOT}
    return {"url": f"{call.public}/", "is_enterprise_install": False} | names


# Each method with the scopes that it needs.
METHODS: dict[str, tuple[Callable[[Call], Answer], tuple[str, ...]]] = {
    "auth.test": (auth_test, ()),
    "chat.postMessage": (post_message, ("chat:write",)),
    "chat.update": (update, ("chat:write",)),
    "chat.getPermalink": (permalink, ()),
    "conversations.list": (list_channels, ("channels:read",)),
    "conversations.history": (history, ("channels:history",)),
    "conversations.replies": (replies, ("channels:history",)),
    "files.getUploadURLExternal": (upload_url, ("files:write",)),
    "files.completeUploadExternal": (complete_upload, ("files:write",)),
}
PRIVATE = "groups:read"
SCOPES = ("chat:write", "files:write", "channels:read", "channels:history", PRIVATE)


def answer(call: Call, method: str, token: str, scopes: Iterable[str]) -> Answer:
    """What Slack answers to a call with `token`, which has these scopes."""
    try:
        if method not in METHODS:
            raise Refused("unknown_method", req_method=method)
        if not token:
            raise Refused("not_authed")
        if not token.startswith("xoxb-"):
            raise Refused("invalid_auth")
        function, needs = METHODS[method]
        if method == "conversations.list" and "private_channel" in call.text("types"):
            needs = (*needs, PRIVATE)
        if missing := [scope for scope in needs if scope not in scopes]:
            raise Refused("missing_scope", needed=missing[0], provided=",".join(scopes))
        with call.workspace.lock:
            return {"ok": True} | function(call)
    except Refused as refused:
        return refused.answer
