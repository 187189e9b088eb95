"""A message as it should stand in the channel, and where Airflow's pages are that it links to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import quote, urljoin

from airflow_steps.links import artifact_url

from airflow_watcher.blocks import TEXT, Block, whole
from airflow_watcher.seen import Run, Task


@dataclass(frozen=True)
class Message:
    """One message: `text` is what a notification shows, `blocks` what the channel does.

    `key` names it among those of its conversation. `broadcast`: a reply that the channel shows too, as people must see it.
    `picture`: the URI of the manifest whose picture is sent instead, with `text` beside it.
    """

    key: str
    text: str
    blocks: Sequence[Block] = ()
    broadcast: bool = False
    picture: str | None = None

    @property
    def shown(self) -> str:
        """The notification's text, within Slack's limit."""
        return whole(self.text, TEXT)

    @property
    def digest(self) -> str:
        """Digits that change when what is to be read does."""
        return hashlib.sha256(json.dumps([self.text, list(self.blocks)]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Conversation:
    """A message in the channel and the replies in its thread; `folder` is where is kept what of it was told."""

    folder: str
    root: Message
    replies: Sequence[Message] = ()


@dataclass(frozen=True)
class Limits:
    """When a person must hear of it: of a run that is not done after `late`, of what is not well or not attended to for longer
    than `grace`. A component that is deployed anew, or moves to another node, is away for a minute.
    """

    late: timedelta = timedelta(minutes=60)
    grace: timedelta = timedelta(minutes=2)


@dataclass(frozen=True)
class Pages:
    """Airflow's pages below the address `ui`; no links where it is None."""

    ui: str | None

    def run(self, run: Run) -> str | None:
        """The page of a run."""
        return f"{self.ui.rstrip('/')}/dags/{quote(run.dag)}/runs/{quote(run.run_id, safe='')}" if self.ui else None

    def log(self, run: Run, task: Task, number: int) -> str | None:
        """The page with the log of a task's try."""
        mapped = f"/mapped/{task.map_index}" if task.map_index >= 0 else ""
        return f"{self.run(run)}/tasks/{quote(task.task_id)}{mapped}?try_number={number}" if self.ui else None

    def artifact(self, manifest: str) -> str | None:
        """The page about an artifact."""
        path = artifact_url(manifest)
        return urljoin(self.ui, path) if self.ui and path else None
