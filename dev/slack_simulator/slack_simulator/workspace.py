"""What was sent: channels, messages with their threads and edits, files. In memory and, where asked, in a folder."""

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

DEFAULT_CHANNELS = ("workflows",)


@dataclass(frozen=True)
class Channel:
    """A channel; Slack's methods take its ID, some its name too."""

    id: str
    name: str


@dataclass
class File:
    """A file: first announced, then uploaded, then shared in a message."""

    id: str
    name: str
    length: int
    title: str = ""
    alt_text: str = ""
    uploaded: bool = False
    shared: bool = False


@dataclass
class Message:
    """A message. `ts` is its ID within the channel, and its time; `thread_ts` is the message that it replies to."""

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
        """Whether it stands in a thread and did not start it."""
        return bool(self.thread_ts) and self.thread_ts != self.ts


class Workspace:
    """All channels with what was sent to them. With `folder` a restart forgets nothing.

    `now` gives the seconds since 1970. Whoever does more than one thing at once holds `lock`.
    """

    def __init__(
        self,
        folder: Path | None = None,
        channels: Iterable[str] = DEFAULT_CHANNELS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.lock = threading.RLock()
        self.now = now
        self._folder = folder
        self._first = tuple(channels)
        self._clear()
        if folder:
            self._read(folder)
        for name in self._first:
            self.open_channel(name)

    def _clear(self) -> None:
        self.channels: dict[str, Channel] = {}
        self.messages: dict[str, dict[str, Message]] = {}
        self.files: dict[str, File] = {}
        self._contents: dict[str, bytes] = {}
        self._threads: dict[tuple[str, str], list[Message]] = {}
        self._last = 0

    def _read(self, folder: Path) -> None:
        for file in sorted(folder.glob("channels/*.json")):
            channel = Channel(**json.loads(file.read_bytes()))
            self.channels[channel.id], self.messages[channel.id] = channel, {}
        for file in sorted(folder.glob("messages/*/*.json")):
            message = Message(**json.loads(file.read_bytes()))
            self._take(message)
            self._last = max(self._last, int(message.ts.replace(".", "")))
        for file in sorted(folder.glob("files/*.json")):
            known = File(**json.loads(file.read_bytes()))
            self.files[known.id] = known
            if known.uploaded:
                self._contents[known.id] = file.with_suffix(".bytes").read_bytes()

    def _keep(self, name: str, data: bytes) -> None:
        # Written beside and renamed: whoever is killed in the middle leaves the file as it was.
        if self._folder:
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".{path.name}")
            beside.write_bytes(data)
            beside.replace(path)

    def keep_message(self, message: Message) -> None:
        """Makes a changed message last."""
        self._keep(f"messages/{message.channel}/{message.ts}.json", _json(message))

    def keep_file(self, file: File, content: bytes | None = None) -> None:
        """Makes a changed file last, with its content where that is new."""
        if content is not None:
            self._contents[file.id] = content
            self._keep(f"files/{file.id}.bytes", content)
        self._keep(f"files/{file.id}.json", _json(file))

    def content(self, file_id: str) -> bytes:
        """The file's bytes; KeyError where none were uploaded."""
        return self._contents[file_id]

    def find_channel(self, name_or_id: str) -> Channel | None:
        """The channel of that ID or name, with or without #."""
        name = name_or_id.removeprefix("#")
        return self.channels.get(name) or next((one for one in self.channels.values() if one.name == name), None)

    def open_channel(self, name_or_id: str) -> Channel:
        """The channel of that ID or name; one of that name is made where there is none."""
        if found := self.find_channel(name_or_id):
            return found
        name = name_or_id.removeprefix("#")
        # Of the name alone, so that a channel has one ID wherever the stand-in runs.
        code = base64.b32encode(hashlib.sha256(name.encode()).digest()).decode()[:9]
        channel = Channel(f"C0{code}", name)
        self.channels[channel.id], self.messages[channel.id] = channel, {}
        self._keep(f"channels/{channel.id}.json", _json(channel))
        return channel

    def add(self, channel: Channel, **what: Any) -> Message:
        """Puts a message into the channel; `what` are the fields of Message. Its `ts` is later than that of every other."""
        self._last = max(self._last + 1, int(self.now() * 1_000_000))
        message = Message(channel.id, f"{self._last // 1_000_000}.{self._last % 1_000_000:06d}", **what)
        self._take(message)
        self.keep_message(message)
        return message

    def _take(self, message: Message) -> None:
        self.messages[message.channel][message.ts] = message
        if message.is_reply:
            self._threads.setdefault((message.channel, message.thread_ts), []).append(message)

    def add_file(self, name: str, length: int, alt_text: str = "") -> File:
        """Announces a file of `length` bytes."""
        file = File(f"F0{len(self.files) + 1:09d}", name, length, title=name, alt_text=alt_text)
        self.files[file.id] = file
        self.keep_file(file)
        return file

    def replies(self, root: Message) -> list[Message]:
        """The replies to a message, the oldest first."""
        return list(self._threads.get((root.channel, root.ts), ()))

    def in_channel(self, channel: Channel) -> list[Message]:
        """What the channel itself shows, the oldest first: all but the replies that stay in their thread."""
        return [one for one in self.messages[channel.id].values() if one.broadcast or not one.is_reply]

    def reset(self) -> None:
        """Forgets everything."""
        if self._folder:
            for file in [*self._folder.glob("*/*.*"), *self._folder.glob("messages/*/*.json")]:
                file.unlink(missing_ok=True)
        self._clear()
        for name in self._first:
            self.open_channel(name)


def _json(one: Channel | File | Message) -> bytes:
    return json.dumps(asdict(one)).encode()
