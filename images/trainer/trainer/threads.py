"""How many threads a fit takes: as many as the container was given CPUs, whatever the host has."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MAX_THREADS = 4  # the networks are small: more threads only wait for each other


def thread_count(cgroup: Path = CGROUP) -> int:
    """The CPUs of this container's quota or CPU set, in whole ones, at least 1 and at most MAX_THREADS.

    It is 1 where nobody gave it any: threads that share their CPUs with others wait for whichever of them has none.
    """
    given = [int(cpus) for cpus in (_cpu_quota(cgroup), _cpu_set_size()) if cpus is not None]
    return max(1, min([*given, MAX_THREADS])) if given else 1


def _cpu_quota(cgroup: Path) -> float | None:
    """CPUs by the quota below `cgroup`; see cgroup-v2.rst (cpu.max) and sched-bwc.rst (v1) in the kernel's documentation."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        if all((cgroup / name).is_file() for name in names):
            quota, period = " ".join((cgroup / name).read_text() for name in names).split()
            return None if quota in ("max", "-1") else int(quota) / int(period)
    return None


def _cpu_set_size() -> int | None:
    """How many CPUs this process may run on where these are not all; None where they are."""
    if not hasattr(os, "sched_getaffinity"):  # a Mac
        return None
    allowed = len(os.sched_getaffinity(0))
    return allowed if allowed < (os.cpu_count() or 1) else None
