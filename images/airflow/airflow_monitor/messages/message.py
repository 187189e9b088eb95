"""A Slack message and its thread, and the URLs that messages link to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote, urljoin

from airflow_steps.links import artifact_url

from airflow_monitor.messages.block_kit import TEXT_LENGTH, Block, image, section, truncate
from airflow_monitor.models import Run, TaskInstance


@dataclass(frozen=True)
class Picture:
    """A picture to upload: the file's name in Slack, and the URI of the manifest of the artifact that contains it."""

    file_name: str
    manifest: str


@dataclass(frozen=True)
class Message:
    """One message as it should stand in the channel.

    Attributes:
        key: identifies the message within its thread.
        text: what a notification shows.
        blocks: what the channel shows; the text if there are none.
        broadcast: the channel shows the reply too, as a person must see it.
        picture: uploaded in place of the blocks, with `text` as its comment.
        resolvable: the message is marked as resolved once it no longer applies.
        images: keys of replies in the same thread whose pictures the message shows too.
        announces: key of the reply that would notify of the same, and is omitted if this message is posted as it is. One that
            is edited until it is like this notifies of nothing.
    """

    key: str
    text: str
    blocks: Sequence[Block] = ()
    broadcast: bool = False
    picture: Picture | None = None
    resolvable: bool = False
    images: Sequence[str] = ()
    announces: str = ""

    def with_image(self, file_id: str, alt_text: str) -> Message:
        """Return the message with a picture that was uploaded before at its end."""
        return replace(self, blocks=(*self.blocks, image(file_id, alt_text)))

    def with_title(self, title: str) -> Message:
        """Return the message as it stands alone in the channel, with the title unless its text contains it."""
        if title in self.text:
            return self
        return replace(self, text=f"{title}: {self.text}", blocks=(section(title), *self.blocks) if self.blocks else ())

    @property
    def notification(self) -> str:
        """The text within Slack's limit."""
        return truncate(self.text, TEXT_LENGTH)

    @property
    def digest(self) -> str:
        """A digest of everything that a person reads."""
        return hashlib.sha256(json.dumps([self.text, list(self.blocks)]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class MessageThread:
    """A message in the channel and its replies.

    Attributes:
        directory: holds the records of their delivery.
        title: mrkdwn: what the thread is about, for replies that have to stand alone in the channel.
        is_complete: False while some of what it should contain cannot be read.
    """

    directory: str
    title: str
    root: Message
    replies: Sequence[Message] = ()
    is_complete: bool = True


@dataclass(frozen=True)
class Links:
    """The URLs that messages link to; None for those of which the address is not set.

    Attributes:
        airflow: the URL of Airflow's UI.
        runbook: the URL of docs/runbook.md, on the documentation's site or in the repository's web view.
    """

    airflow: str | None
    runbook: str | None = None

    def run_url(self, run: Run) -> str | None:
        """Return the URL of the run's page."""
        if not self.airflow:
            return None
        return f"{self.airflow.rstrip('/')}/dags/{quote(run.dag_id)}/runs/{quote(run.run_id, safe='')}"

    def log_url(self, run: Run, ti: TaskInstance, try_number: int) -> str | None:
        """Return the URL of the log of an attempt."""
        mapped = f"/mapped/{ti.map_index}" if ti.map_index >= 0 else ""
        run_url = self.run_url(run)
        return f"{run_url}/tasks/{quote(ti.task_id)}{mapped}?try_number={try_number}" if run_url else None

    def artifact_url(self, manifest: str) -> str | None:
        """Return the URL of the artifact's page; None if the artifact is not below the deployment's artifacts."""
        path = artifact_url(manifest)
        return urljoin(self.airflow, path) if self.airflow and path else None

    def runbook_url(self, section: str) -> str | None:
        """Return the URL of a section of the runbook, by its anchor."""
        return f"{self.runbook.partition('#')[0]}#{section}" if self.runbook else None
