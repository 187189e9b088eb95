"""How many threads a fit takes."""

from __future__ import annotations

from loky import cpu_count

MOST = 4  # the networks are small: more threads only wait for each other


def threads() -> int:
    """As many as the container was given CPUs, by its cgroup (v1 or v2) or its CPU set; at least 1, at most MOST.

    Without a limit these are the host's.
    """
    given: int = cpu_count()
    return min(given, MOST)
