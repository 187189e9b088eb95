"""Channels, messages and files, in memory; a workspace with a folder survives restarts."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PNG = b"\x89PNG\r\n\x1a\n"
DEFAULT_CHANNELS = ("workflows",)


@dataclass(frozen=True)
class Channel:
    """A channel. Every method of the Web API takes its ID, some also its name."""

    id: str
    name: str


@dataclass
class File:
    """A file of `length` bytes, uploaded or announced."""

    id: str
    name: str
    length: int
    title: str = ""


@dataclass
class Message:
    """A message.

    Attributes:
        channel: the channel's ID.
        ts: the message's ID within the channel, which is also its time: seconds since 1970 with six decimals.
        thread_ts: the ts of the message that this one replies to; empty if it is not a reply.
        broadcast: whether the channel shows the reply too.
        files: IDs of the files that the message shares.
        edited: the time of the edit that marks the message as edited; empty if there is none.
    """

    channel: str
    ts: str
    text: str = ""
    blocks: list[dict[str, Any]] = field(default_factory=list)
    thread_ts: str = ""
    broadcast: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    edited: str = ""

    @property
    def is_reply(self) -> bool:
        """Whether the message is in a thread that another message started."""
        return bool(self.thread_ts) and self.thread_ts != self.ts


class Workspace:
    """All channels, messages and files. Hold `lock` around every use from more than one thread.

    Args:
        folder: where to keep everything across restarts; None keeps it in memory only.
        channels: names of the channels that exist from the start.
        now: returns the current time in seconds since 1970.
    """

    def __init__(
        self, folder: Path | None = None, channels: Iterable[str] = DEFAULT_CHANNELS, now: Callable[[], float] = time.time
    ) -> None:
        self.lock = threading.RLock()
        self.now = now
        self.channels: dict[str, Channel] = {}
        self.messages: dict[str, dict[str, Message]] = {}  # by channel ID, then ts
        self.files: dict[str, File] = {}
        self._contents: dict[str, bytes] = {}
        self._folder = folder
        self._last_ts = 0  # microseconds
        if folder:
            self._load(folder)
        for name in channels:
            self.open_channel(name)

    def _load(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "workspace.json"
        saved = json.loads(path.read_bytes()) if path.exists() else {"channels": [], "messages": [], "files": []}
        for channel in (Channel(**fields) for fields in saved["channels"]):
            self.channels[channel.id], self.messages[channel.id] = channel, {}
        for message in (Message(**fields) for fields in saved["messages"]):
            self.messages[message.channel][message.ts] = message
            self._last_ts = max(self._last_ts, int(message.ts.replace(".", "")))
        self.files = {fields["id"]: File(**fields) for fields in saved["files"]}
        self._contents = {id: (folder / id).read_bytes() for id in self.files if (folder / id).exists()}

    def save(self) -> None:
        """Write channels, messages and files to the folder, if there is one."""
        if not self._folder:
            return
        content = {
            "channels": [asdict(channel) for channel in self.channels.values()],
            "messages": [asdict(message) for messages in self.messages.values() for message in messages.values()],
            "files": [asdict(file) for file in self.files.values()],
        }
        self._write(self._folder / "workspace.json", json.dumps(content).encode())

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        # A process killed in the middle of a write leaves the previous file intact.
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(data)
        temporary.replace(path)

    def find_channel(self, name_or_id: str) -> Channel | None:
        """Return the channel with this ID or this name, with or without #."""
        name = name_or_id.removeprefix("#")
        return self.channels.get(name) or next((channel for channel in self.channels.values() if channel.name == name), None)

    def open_channel(self, name: str) -> Channel:
        """Return the channel with this name; create it if it does not exist."""
        if channel := self.find_channel(name):
            return channel
        name = name.removeprefix("#")
        # Derived from the name, so that a channel has the same ID in every simulator.
        code = base64.b32encode(hashlib.sha256(name.encode()).digest()).decode()[:9]
        channel = Channel(f"C0{code}", name)
        self.channels[channel.id], self.messages[channel.id] = channel, {}
        self.save()
        return channel

    def add(self, channel: Channel, **fields: Any) -> Message:
        """Add a message with these fields to the channel. Its `ts` is greater than that of every other message."""
        self._last_ts = max(self._last_ts + 1, int(self.now() * 1_000_000))
        message = Message(channel.id, f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06d}", **fields)
        self.messages[channel.id][message.ts] = message
        self.save()
        return message

    def add_file(self, name: str, length: int) -> File:
        """Announce a file of `length` bytes."""
        file = File(f"F0{len(self.files) + 1:09d}", name, length, title=name)
        self.files[file.id] = file
        self.save()
        return file

    def upload(self, file: File, content: bytes) -> None:
        """Set the content of an announced file."""
        self._contents[file.id] = content
        if self._folder:
            self._write(self._folder / file.id, content)

    def content(self, file_id: str) -> bytes | None:
        """Return a file's content, or None if it was not uploaded."""
        return self._contents.get(file_id)

    def is_shared_picture(self, file_id: str) -> bool:
        """Return whether the file is a picture that a message shares."""
        shared = (message.files for messages in self.messages.values() for message in messages.values())
        return (self.content(file_id) or b"").startswith(PNG) and any(file_id in files for files in shared)

    def replies(self, root: Message) -> list[Message]:
        """Return the replies to a message, oldest first."""
        messages = self.messages[root.channel].values()
        return [message for message in messages if message.is_reply and message.thread_ts == root.ts]

    def in_channel(self, channel: Channel) -> list[Message]:
        """Return the messages that the channel itself shows, oldest first: all except replies that were not broadcast."""
        return [message for message in self.messages[channel.id].values() if message.broadcast or not message.is_reply]
