"""The log of a step's container, copied to the task's log: every line once, at a pace that leaves room for other steps.

Each line is logged at the level INFO: `step_contract.cli.run_step` sets the format of a program's lines, which has no level.
With the runner `process`, `operator` logs the lines.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from airflow_steps.airflow_internals.task_log import step_log
from airflow_steps.pods.client import RECONNECT_SECONDS, LogUnavailableError, PodClient, describe_error, is_transient
from airflow_steps.pods.event_loop import PerEventLoop
from airflow_steps.termination import MAX_LAST_LINES, parse_platform

MAX_LINE_BYTES = 16_384
# What one attempt may add to the task's log. The rest is counted, and the last lines are added at the end.
MAX_LOG_BYTES = 10 * 2**20
# What all steps of a triggerer add at most. The kubelet keeps what a step prints faster.
LINES_PER_SECOND = 2_000
BYTES_PER_SECOND = 2 * 2**20
BURST_SECONDS = 1.0
BATCH_LINES = 50
# A stream that continues another starts this many seconds before the last line, as clocks are set back.
REPEATED_SECONDS = 10
MAX_RECENT_LINES = 1_000
MAX_TIME_LENGTH = 40


class LogPacer:
    """A rate limit for the lines that all triggers of a process log, first come, first served: `LogPacer.get()`."""

    _shared: ClassVar[PerEventLoop[LogPacer]] = PerEventLoop()

    def __init__(self) -> None:
        self._free_at = 0.0  # when all lines that were accepted until now are paid for

    @classmethod
    def get(cls) -> LogPacer:
        """Return the limit of this process's event loop."""
        return cls._shared.get() or cls._shared.set_default(cls())

    async def acquire(self, lines: int, size: int) -> None:
        """Wait until `lines` lines of `size` bytes in total may be logged. Always yields to the event loop."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now) + max(lines / LINES_PER_SECOND, size / BYTES_PER_SECOND)
        await asyncio.sleep(max(0.0, self._free_at - BURST_SECONDS - now))


class PodLog:
    """Copies the log of one container.

    Attributes:
        last_lines: the last lines that were read.
        platform: the architectures of image and node, once the step has logged them.
        omitted: how many lines were not copied, because the log exceeds MAX_LOG_BYTES.
    """

    def __init__(self, client: PodClient, namespace: str, name: str, container: str) -> None:
        self._client, self._key = client, (namespace, name, container)
        self._terminated = asyncio.Event()
        # What a stream that continues another repeats: the times of the last lines, in the order of the log, and the latest
        # time of the lines before these. Times are not in order if the node's clock is set back, and of two output streams.
        self._recent: deque[str] = deque()
        self._latest_before = ""
        self._size = 0
        self._limit = f"the log exceeds {MAX_LOG_BYTES / 2**20:.0f} MiB"  # why lines are omitted
        self._error = ""
        self.last_lines: deque[str] = deque(maxlen=MAX_LAST_LINES)
        self.platform: str | None = None
        self.omitted = 0

    def set_terminated(self) -> None:
        """The container has terminated: what the API server returns from now on is the whole log."""
        self._terminated.set()

    async def copy(self) -> None:
        """Copy the log until its end, after the container has terminated. Reopens a stream that breaks or ends before."""
        while True:
            final = self._terminated.is_set()
            try:
                await self._copy_stream(follow=not final)
                if final:
                    break
            except LogUnavailableError:
                if final:
                    break
            except Exception as error:
                if not is_transient(error):
                    raise
                self._error = describe_error(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RECONNECT_SECONDS):
                    await (asyncio.sleep(RECONNECT_SECONDS) if final else self._terminated.wait())
        self._report_omitted()

    def skip_rest(self, seconds: float) -> None:
        """Only count the lines from now on: the step ended `seconds` ago."""
        if self._size <= MAX_LOG_BYTES:
            self._size = MAX_LOG_BYTES + 1
            self._limit = f"the log was not copied within {seconds:.0f} s of the step's end"

    def report_missing_end(self, seconds: float) -> None:
        """Log that the end of the log is missing; `seconds` is how long it was waited for."""
        self._report_omitted()
        reason = f": {self._error}" if self._error else ""
        step_log.warning(f"the end of the log is missing: it was not read within {seconds:.0f} s of the step's end{reason}")

    def _report_omitted(self) -> None:
        if not self.omitted:
            return
        last_lines = list(self.last_lines)[-self.omitted :]
        step_log.warning(f"{self.omitted} lines omitted: {self._limit}; the last {len(last_lines)} lines are:")
        for line in last_lines:
            step_log.info(line)

    async def _copy_stream(self, *, follow: bool) -> None:
        repeated, latest_before = Counter(self._recent), self._latest_before
        since = _subtract_margin(self._recent[-1]) if self._recent else None
        chunks = self._client.stream_log(*self._key, follow=follow, since=since)
        pacer = LogPacer.get()
        async with contextlib.aclosing(_split_batches(chunks, complete=not follow)) as batches:
            async for batch in batches:
                lines = []
                for line in batch:
                    time, _, text = line.partition(" ")
                    time = time[:MAX_TIME_LENGTH]
                    if repeated[time] > 0:
                        repeated[time] -= 1
                    elif not latest_before or _compare_times(time, latest_before) > 0:
                        self._remember(time)
                        lines.append((time, text))
                await self._log_lines(lines, pacer)

    def _remember(self, time: str) -> None:
        self._recent.append(time)
        if len(self._recent) > MAX_RECENT_LINES:
            oldest = self._recent.popleft()
            if not self._latest_before or _compare_times(oldest, self._latest_before) > 0:
                self._latest_before = oldest

    async def _log_lines(self, lines: list[tuple[str, str]], pacer: LogPacer) -> None:
        copied = []
        for time, text in lines:
            self.last_lines.append(text)
            self.platform = parse_platform(text) or self.platform
            self._size += len(text)
            if self._size <= MAX_LOG_BYTES:
                copied.append((time, text))
        self.omitted += len(lines) - len(copied)
        await pacer.acquire(len(copied), sum(len(text) for _, text in copied))
        for time, text in copied:
            step_log.info(text, timestamp=_to_utc(time))


def _parse_time(text: str) -> datetime:
    """Return a time of the kubelet's, which has the node's time zone and nine decimal places, of which six are kept."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _compare_times(first: str, second: str) -> int:
    """Return -1, 0 or 1: whether `first` is before, equal to or after `second`, to the nanosecond."""

    def make_key(text: str) -> tuple[datetime, str]:
        fraction = text.partition(".")[2]
        digits = fraction[: next((index for index, char in enumerate(fraction) if not char.isdigit()), len(fraction))]
        return _parse_time(text), digits.ljust(9, "0")

    if len(first) == len(second) and first[-1:] == second[-1:] == "Z":
        return (first > second) - (first < second)
    try:
        one, other = make_key(first), make_key(second)
    except ValueError:
        return 1  # not a line of the kubelet's: better twice than never
    return (one > other) - (one < other)


def _subtract_margin(time: str) -> datetime | None:
    """Return from when on to read lines again after one of this time; lines that were read are skipped."""
    try:
        return _parse_time(time) - timedelta(seconds=REPEATED_SECONDS)
    except (ValueError, OverflowError):
        return None


def _to_utc(time: str) -> str:
    try:
        return _parse_time(time).astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError):
        return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


async def _split_batches(chunks: AsyncIterator[bytes], *, complete: bool) -> AsyncGenerator[list[str], None]:
    """Yield the lines of a stream in lists of at most BATCH_LINES, each line truncated to MAX_LINE_BYTES.

    A line that lacks its end is yielded only if the stream is `complete`; otherwise it is part of the next one.
    """
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        rest = rest[: MAX_LINE_BYTES + 1]
        for start in range(0, len(lines), BATCH_LINES):
            yield [_decode_line(line) for line in lines[start : start + BATCH_LINES]]
    if rest and complete:
        yield [_decode_line(rest)]


def _decode_line(line: bytes) -> str:
    text = line[:MAX_LINE_BYTES].decode(errors="replace").rstrip("\r")
    return f"{text} … (truncated)" if len(line) > MAX_LINE_BYTES else text
