"""The two processes of Airflow's triggerer, extended: `install` makes `airflow triggerer` start them.

Relies on airflow.jobs.triggerer_job_runner: TriggererJobRunner starts a TriggerRunnerSupervisor, which reads triggers from the
database, and whose child process runs a TriggerRunner. The methods that are overridden, public or not, are listed with what
they receive in tests/unit/airflow/test_internals_triggerer.py. If one of them is gone, remove the override and measure what it
was for: docs/decisions/0023-own-triggerer-process.md has the reasons and the figures.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import selectors
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import ContextVar
from socket import MSG_DONTWAIT, socket
from types import ModuleType
from typing import Any, cast

import attrs
from airflow.__main__ import main as run_airflow
from airflow.callbacks import database_callback_sink
from airflow.callbacks.database_callback_sink import DatabaseCallbackSink
from airflow.jobs import triggerer_job_runner
from airflow.jobs.triggerer_job_runner import TriggererJobRunner, TriggerRunner, TriggerRunnerSupervisor
from airflow.models.trigger import handle_event_submit
from airflow.sdk.execution_time.supervisor import make_buffered_socket_reader
from airflow.triggers.base import TaskSuccessEvent
from cachetools import TTLCache
from sqlalchemy.exc import DataError

from airflow_steps.airflow_internals.single_task_dag import SingleTaskBag, has_success_callback

LOG_BUFFER_BYTES = 2**16
GROUP_SIZE = 16  # triggers that start together
# Serialized DAGs that are kept for the next group.
MAX_DAGS, DAG_SECONDS = 8, 30.0
PASS_SECONDS = 0.2
# Airflow's own loop is returned to this often: it checks the connection to the supervisor and logs the number of triggers.
RETURN_SECONDS = 30.0
# A trigger that is still there this long after it was cancelled is cancelled again. Airflow gives `on_kill` 30 s.
CANCEL_SECONDS = 60.0

log = logging.getLogger(__name__)
_drop_callbacks: ContextVar[bool] = ContextVar("drop_callbacks", default=False)


class StepCallbackSink(DatabaseCallbackSink):
    """Where Airflow stores requests to call callbacks. Drops those about a task without callbacks."""

    def send(self, *args: Any, **kwargs: Any) -> None:
        """Store a request, unless it is dropped."""
        if not _drop_callbacks.get():
            super().send(*args, **kwargs)


class ResponseSocket:
    """The supervisor's socket for responses to the runner. It reads the runner's log while it sends one."""

    def __init__(self, responses: socket, logs: socket, read_log: Callable[[socket], bool]) -> None:
        self._responses, self._logs, self._read_log = responses, logs, read_log

    def sendall(self, data: bytes) -> None:
        """Send the data."""
        rest = memoryview(data)
        with selectors.DefaultSelector() as selector:
            selector.register(self._responses, selectors.EVENT_WRITE)
            if self._logs.fileno() >= 0:
                selector.register(self._logs, selectors.EVENT_READ)
            while rest:
                for key, _ in selector.select():
                    if key.fileobj is self._responses:
                        with suppress(BlockingIOError):
                            rest = rest[self._responses.send(rest, MSG_DONTWAIT) :]
                    elif not self._read_log(self._logs):
                        selector.unregister(self._logs)  # its end; the supervisor's own selector closes it

    def close(self) -> None:
        """Close the socket."""
        self._responses.close()


@attrs.define(kw_only=True)
class StepTriggerSupervisor(TriggerRunnerSupervisor):
    """The process that reads triggers from the database and stores their events."""

    _dags: TTLCache[Any, Any] = attrs.field(factory=lambda: TTLCache(MAX_DAGS, DAG_SECONDS), init=False)
    # Triggers of tasks without callbacks for success.
    _quiet_triggers: set[int] = attrs.field(factory=set, init=False)

    @classmethod
    def start(cls, **options: Any) -> Any:
        """Start the child process. The API that serves its requests takes seconds to build: not while a trigger waits."""
        supervisor = super().start(**options)
        try:
            supervisor.client.task_instances.get_task_states(dag_id="none")
        except Exception:  # the first trigger will wait, or meet the same error
            log.exception("the API for triggers does not respond")
        return supervisor

    @classmethod
    def run_in_process(cls) -> None:
        """Run the triggers, in the child process."""
        StepTriggerRunner().run()  # type: ignore[no-untyped-call]

    def _register_pipe_readers(self, stdout: Any, stderr: Any, requests: Any, logs: Any, *, data: Any) -> None:
        """Read the runner's log in large pieces, and also while a response to the runner is sent.

        Airflow reads 4 kB between two rounds of database queries, 900 lines a second; the runner waits meanwhile. It would wait
        forever while the supervisor waits for it to read a response that exceeds the socket's buffer.
        """
        super()._register_pipe_readers(stdout, stderr, requests, logs, data=data)
        self.selector.unregister(logs)
        read, on_close = make_buffered_socket_reader(
            self._process_log_messages_from_subprocess(), on_close=self._on_socket_closed, buffer_size=LOG_BUFFER_BYTES
        )

        def read_available(sock: socket) -> bool:
            with suppress(BlockingIOError):  # read meanwhile
                return bool(read(sock))
            return True

        logs.setblocking(False)
        self.selector.register(logs, selectors.EVENT_READ, (read_available, on_close))
        self.stdin = cast("socket", ResponseSocket(self.stdin, logs, read_available))

    def _service_subprocess(self, max_wait_time: float, *args: Any, **kwargs: Any) -> Any:
        """Check at least once a second whether the runner has exited, which Airflow's caller does each time this returns.

        Once the sockets are closed, nothing would interrupt its wait of 10 s, during which no triggerer has these triggers.
        """
        return super()._service_subprocess(min(max_wait_time, 1.0), *args, **kwargs)

    def build_trigger_workloads(self, new_trigger_ids: set[int]) -> list[Any]:
        """Return the workloads of the first group of new triggers; Airflow asks for the others in the next pass.

        It also asks again for triggers that it has skipped, for example because their task instances have no DAG version.
        """
        trigger_ids = sorted(new_trigger_ids)
        groups = (set(trigger_ids[start : start + GROUP_SIZE]) for start in range(0, len(trigger_ids), GROUP_SIZE))
        return next(filter(None, map(super().build_trigger_workloads, groups)), [])

    def _create_workload(self, trigger: Any, dag_bag: Any, render_log_fname: Any, session: Any) -> Any:
        if trigger.task_instance is None:
            return super()._create_workload(trigger, dag_bag, render_log_fname, session)
        bag: Any = SingleTaskBag(dag_bag, trigger.task_instance.task_id, self._dags)
        workload = super()._create_workload(trigger, bag, render_log_fname, session)
        if workload and workload.dag_data and not has_success_callback(workload.dag_data):
            self._quiet_triggers.add(trigger.id)
        return workload

    def on_trigger_event(self, trigger_id: int, event: Any) -> None:
        """Store an event. A task without a callback for success costs no parse of its DAG file for that callback.

        An event that the database rejects fails its task: the exception would end this triggerer, and every other one that
        takes over the trigger.
        """
        is_quiet = trigger_id in self._quiet_triggers and isinstance(event, TaskSuccessEvent)
        self._quiet_triggers.discard(trigger_id)
        token = _drop_callbacks.set(is_quiet)
        try:
            super().on_trigger_event(trigger_id, event)
        except DataError as error:
            log.error("the database rejects the event of trigger %s: %s", trigger_id, error.orig)
            self.on_trigger_failure(trigger_id, [f"the database rejects the trigger's event: {error.orig}"])
        finally:
            _drop_callbacks.reset(token)

    def on_trigger_failure(self, trigger_id: int, exc: list[str] | None) -> None:
        """Store a failure; its text without null characters, which Postgres does not store in JSON."""
        super().on_trigger_failure(trigger_id, exc and [line.replace("\0", "\N{REPLACEMENT CHARACTER}") for line in exc])


class Events(deque[Any]):
    """The events that triggers have yielded; `wake` is set when one is added."""

    def __init__(self, wake: asyncio.Event, events: Iterable[Any] = ()) -> None:
        super().__init__(events)
        self._wake = wake

    def append(self, event: Any) -> None:
        """Add an event."""
        super().append(event)
        self._wake.set()


class StepTriggerRunner(TriggerRunner):
    """The process that runs the triggers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._wake = asyncio.Event()
        self.events = Events(self._wake)
        # The triggers that were cancelled: their tasks, and until when they are not cancelled again.
        self._cancelled: dict[int, tuple[asyncio.Task[Any], float]] = {}

    async def cancel_triggers(self) -> None:
        """Cancel triggers, then pass events and triggers on until none runs.

        This is the last call in a pass of Airflow's loop, which then sleeps for a second.
        """
        await self._cancel_once()
        return_at, reader = time.monotonic() + RETURN_SECONDS, self.comms_decoder._reader_task
        while self.triggers and not self.stop and reader and not reader.done() and time.monotonic() < return_at:
            with suppress(TimeoutError):
                async with asyncio.timeout(PASS_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            await self.sync_state_to_supervisor(await self.cleanup_finished_triggers())
            await self.create_triggers()  # type: ignore[no-untyped-call]
            await self._cancel_once()

    async def _cancel_once(self) -> None:
        """Cancel triggers once.

        The supervisor repeats its request with each response until the trigger has finished, which would cancel its `on_kill`.
        """
        now = time.monotonic()
        self._cancelled = {
            trigger_id: (task, until)
            for trigger_id, (task, until) in self._cancelled.items()
            if until > now and trigger_id in self.triggers and self.triggers[trigger_id]["task"] is task
        }
        requested = {trigger_id for trigger_id in self.to_cancel if trigger_id in self.triggers} - self._cancelled.keys()
        self._cancelled |= {trigger_id: (self.triggers[trigger_id]["task"], now + CANCEL_SECONDS) for trigger_id in requested}
        self.to_cancel = deque(requested)
        await super().cancel_triggers()  # type: ignore[no-untyped-call]


def install() -> None:
    """Make `airflow triggerer` in this process start the classes of this module. Airflow has no setting for them.

    Raises RuntimeError if this version of Airflow does not look the classes up where they are replaced.
    """
    submit_success = handle_event_submit.dispatch(TaskSuccessEvent)
    _replace(triggerer_job_runner, TriggerRunnerSupervisor, StepTriggerSupervisor, TriggererJobRunner._execute)
    _replace(database_callback_sink, DatabaseCallbackSink, StepCallbackSink, submit_success)


def run_command(arguments: list[str]) -> None:
    """Run `airflow triggerer` in this process."""
    sys.argv = ["airflow", "triggerer", *arguments]
    run_airflow()


def _replace(module: ModuleType, original: type, replacement: type, user: Callable[..., Any]) -> None:
    """Replace a class of `module`, which the function `user` looks up by name when it is called."""
    function: Any = inspect.unwrap(user)
    if original.__name__ not in function.__code__.co_names:
        raise RuntimeError(
            f"cannot extend this version of Airflow's triggerer: {function.__module__}.{function.__qualname__} does not use "
            f"{original.__name__}. Adapt {__name__}; until then, start `airflow triggerer` (triggerer.args in helm/values.yaml)"
        )
    setattr(module, original.__name__, replacement)
