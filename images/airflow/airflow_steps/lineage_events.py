"""OpenLineage events of steps: which datasets a step read and wrote, by the URIs in its manifest.

Airflow's OpenLineage provider emits events from listeners, which Airflow calls in workers and in the scheduler only. So the
provider reports runs, and steps that ended in a worker; for a step that ended in the triggerer, `emit_completion` emits the
same events. It returns at once: a receiver that is slow or silent must delay no step. docs/lineage.md lists what is emitted.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from step_contract.lineage.sources import Source, SourceList

from airflow_steps.airflow_internals import openlineage_provider

if TYPE_CHECKING:
    from airflow_steps.outcome import StepOutput

# Events that wait for the receiver; more are dropped.
MAX_WAITING = 200

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetName:
    """The name of a dataset by OpenLineage's convention, and the sha256 of its content as its version; empty if it has none.

    The namespace is the scheme with the host or the bucket; the name is the path.
    """

    namespace: str
    name: str
    version: str = ""


def list_inputs(sources: Iterable[Source | SourceList]) -> list[DatasetName]:
    """Return the datasets that a step read: each source, or for a long list of artifacts the directory that has them all."""
    return list(dict.fromkeys(_name_source(source) for source in sources))


def name_dataset(uri: str, version: str = "") -> DatasetName:
    """Return the dataset for the URI of a manifest or of a file."""
    # Not urlsplit: the name of a file or of an object may have "?" and "#".
    scheme, _, rest = uri.partition("://")
    host, _, path = rest.partition("/")
    if scheme == "file":
        return DatasetName("file", f"/{path}", version)
    return DatasetName(f"{scheme}://{host}", path if scheme == "s3" and path else f"/{path}", version)


def _name_source(source: Source | SourceList) -> DatasetName:
    if isinstance(source, Source):
        return name_dataset(source.uri, source.sha256)
    return name_dataset(f"{source.root}/{source.role}" if source.root else f"file:///{source.file}")


class EventSender:
    """Calls functions one after another in a thread that does not keep the process alive; drops them while too many wait."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[Callable[[], None]] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None
        self._dropped = 0

    def submit(self, send: Callable[[], None]) -> bool:
        """Call `send` later; return whether it will be called. Never blocks."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="openlineage", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(send)
        except queue.Full:
            self._dropped += 1
            if self._dropped == 1 or self._dropped % MAX_WAITING == 0:
                log.warning("%d OpenLineage events were dropped: the receiver is slower than the steps", self._dropped)
            return False
        return True

    def _run(self) -> None:
        while True:
            send = self._waiting.get()
            try:
                send()
            except Exception as error:
                log.warning("an OpenLineage event was not emitted: %s: %s", type(error).__name__, error)


SENDER = EventSender()


def emit_completion(ti: Any, output: StepOutput, started: datetime) -> None:
    """Emit, if OpenLineage is enabled, that the step of `ti` started at `started` and completed now. Returns at once.

    Nothing that goes wrong is raised: it is logged.
    """
    try:
        if openlineage_provider.is_enabled():
            inputs, outputs = list_inputs(output.sources), [name_dataset(output.manifest)]
            ended = datetime.now(UTC)
            SENDER.submit(lambda: openlineage_provider.emit_events(ti, inputs, outputs, started, ended))
    except Exception as error:
        log.warning("OpenLineage: %s: %s", type(error).__name__, error)


def make_operator_lineage(output: StepOutput | None) -> Any:
    """Return the datasets of a step that ran in a worker, for the provider's listener; None if it has no output."""
    if output is None:
        return None
    return openlineage_provider.make_operator_lineage(list_inputs(output.sources), [name_dataset(output.manifest)])
