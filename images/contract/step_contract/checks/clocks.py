"""Compare a clock with this machine's. Imports nothing but the standard library, as `findings`."""

from __future__ import annotations

from datetime import datetime, timedelta

from step_contract.checks.findings import Finding, error, ok, warning

# A signature of S3 is valid for 15 minutes; Airflow's tokens tolerate 10 s, and a heartbeat counts for 30 s.
MAX_SKEW = timedelta(seconds=10)
NOTICEABLE_SKEW = timedelta(seconds=2)
CLOCK_CHECK = "clock"


def compare_clocks(
    name: str, time: datetime, earliest: datetime, latest: datetime, resolution: timedelta = timedelta()
) -> Finding:
    """Return a finding about the clock of `name`, which showed `time` at some moment between `earliest` and `latest` (here).

    `resolution` is by how much `time` may have been rounded down. All times are aware.
    """
    skew = max(earliest - time - resolution, time - latest, timedelta())
    message = f"{name} differs by {skew.total_seconds():.1f} s or less from this clock"
    if skew <= NOTICEABLE_SKEW:
        return ok(CLOCK_CHECK, message)
    direction = "behind" if time < earliest else "ahead"
    message = f"the clock of {name} is at least {skew.total_seconds():.0f} s {direction}"
    advice = "synchronize both clocks (NTP): tokens, signatures and heartbeats depend on them"
    return (error if skew > MAX_SKEW else warning)(CLOCK_CHECK, message, advice)
