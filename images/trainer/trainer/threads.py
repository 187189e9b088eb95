"""The number of threads for PyTorch: the CPUs that the container has, not those of the node."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MAX_THREADS = 4  # the networks are small: more threads only wait for each other


def thread_count(cgroup: Path = CGROUP, environment: Mapping[str, str] = os.environ) -> int:
    """Return the whole CPUs of this container's quota or CPU set, or else of its request; at least 1, at most MAX_THREADS.

    Without any of these it is 1: threads that share their CPUs with other processes wait for the slowest of them.
    """
    limits = [int(cpus) for cpus in (_cpu_quota(cgroup), _cpu_set_size()) if cpus is not None]
    return max(1, min([*(limits or [_cpu_request(environment)]), MAX_THREADS]))


def _cpu_request(environment: Mapping[str, str]) -> int:
    """Return the whole CPUs that the pod requests, as the operator passes them; 0 if they are not known."""
    text = environment.get("STEP_CPU_MILLICORES", "")
    return int(text) // 1000 if text.isdecimal() else 0


def _cpu_quota(cgroup: Path) -> float | None:
    """Return the quota in CPUs, or None if there is none.

    Source: the kernel's documentation, cgroup-v2.rst (cpu.max) and sched-bwc.rst (version 1).
    """
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        if all((cgroup / name).is_file() for name in names):
            quota, period = " ".join((cgroup / name).read_text() for name in names).split()
            return None if quota in ("max", "-1") else int(quota) / int(period)
    return None


def _cpu_set_size() -> int | None:
    """Return the number of CPUs that this process may run on, or None if these are all."""
    if not hasattr(os, "sched_getaffinity"):  # macOS
        return None
    allowed = len(os.sched_getaffinity(0))
    return allowed if allowed < (os.cpu_count() or 1) else None
