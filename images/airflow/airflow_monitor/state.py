"""What has been told, kept in the object store: an object for each message, so that a restart tells nothing twice."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote

from step_contract.errors import StepError
from step_contract.store import Store

log = logging.getLogger(__name__)
# Longer than any call to Slack may take: whoever claimed a message and has not told it by then never will.
CLAIM = timedelta(minutes=2)
LONG_AGO = "2000-01-01T00:00:00+00:00"


@dataclass(frozen=True)
class Told:
    """A message that was told, or is being told where `ts` is empty. `channel` and `ts` are Slack's names for it.

    `text` is what it last said, `digest` stands for all of it, `claimed` is when it was first to be told.
    """

    channel: str = ""
    ts: str = ""
    digest: str = ""
    text: str = ""
    claimed: str = ""

    @property
    def is_claim(self) -> bool:
        """Whether nobody knows yet that it was told."""
        return not self.ts

    def is_fresh(self, now: datetime) -> bool:
        """Whether who claimed it may still be telling it."""
        return now - datetime.fromisoformat(self.claimed) < CLAIM

    @classmethod
    def from_json(cls, data: bytes | None) -> Told:
        """What `keep` wrote down; of what is damaged, a claim that is long past: Slack itself knows then."""
        try:
            told = cls(**json.loads(data or b""))
            if all(isinstance(text, str) for text in asdict(told).values()) and datetime.fromisoformat(told.claimed).tzinfo:
                return told
        except (ValueError, TypeError):
            pass
        return cls(claimed=LONG_AGO)


class Ledger:
    """What was told, by folder and key. An object store that is down is no reason to be silent: then this process remembers,
    and writes it down later.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: dict[str, dict[str, Told]] = {}
        self._unwritten: set[tuple[str, str]] = set()

    def known(self, folder: str) -> dict[str, Told]:
        """What was told of `folder`, by key."""
        if folder not in self._known:
            try:
                self._known[folder] = self._read(folder)
            except StepError as error:
                log.warning("what was told before is not known: %s", error)
                return self._known.setdefault(folder, {})
        return self._known[folder]

    def _read(self, folder: str) -> dict[str, Told]:
        found = {}
        for name, data in self.store.read_many(self.store.list(folder)).items():
            found[unquote(name.rpartition("/")[2].removesuffix(".json"))] = Told.from_json(data)
        return found

    def forget(self, folder: str) -> None:
        """Lets `folder` be read anew: another watcher has written there."""
        if folder not in {unwritten for unwritten, _ in self._unwritten}:
            self._known.pop(folder, None)

    def claim(self, folder: str, key: str) -> bool:
        """Whether this watcher, and no other, is to tell the message; atomic where the store answers."""
        told = Told(claimed=datetime.now(UTC).isoformat(timespec="seconds"))
        try:
            first = self.store.create(_path(folder, key), _json(told))
        except StepError as error:
            log.warning("a message is told that could not be claimed: %s", error)
            first = True
        if first:
            self.known(folder)[key] = told
        return first

    def keep(self, folder: str, key: str, told: Told) -> None:
        """Writes down that the message was told so."""
        self.known(folder)[key] = told
        self._unwritten.add((folder, key))
        self.write()

    def write(self) -> None:
        """Writes down what could not be before."""
        for folder, key in sorted(self._unwritten):
            try:
                self.store.replace(_path(folder, key), _json(self._known[folder][key]))
            except StepError as error:
                log.warning("what was told is not written down yet: %s", error)
                return
            self._unwritten.discard((folder, key))

    def drop(self, folders: set[str]) -> None:
        """Forgets, in memory, all but `folders`."""
        waiting = {folder for folder, _ in self._unwritten}
        self._known = {folder: known for folder, known in self._known.items() if folder in folders | waiting}


def _path(folder: str, key: str) -> str:
    return f"{folder}/{quote(key, safe='')}.json"


def _json(told: Told) -> bytes:
    return json.dumps(asdict(told), ensure_ascii=False).encode()
