"""How much memory the next try of a step gets that ran out of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from kubernetes.utils.quantity import parse_quantity
from step_contract.errors import ConfigurationError, Termination

from airflow_steps.settings import setting


def grown(memory: str, times: int, environment: Mapping[str, str] = os.environ) -> str:
    """`memory`, a quantity of Kubernetes, after it was too little `times` times: by STEP_MEMORY_FACTOR each, at most
    STEP_MEMORY_LIMIT, and never less than it was. Raises ConfigurationError where a setting is none of that.
    """
    factor, limit = setting(environment, "STEP_MEMORY_FACTOR") or "2", setting(environment, "STEP_MEMORY_LIMIT") or "8Gi"
    try:
        size, most, by = parse_quantity(memory), parse_quantity(limit), float(factor)
        if not 1 <= by <= 16:
            raise ValueError
    except ValueError:
        raise ConfigurationError(
            f"STEP_MEMORY_FACTOR is {factor!r} and must be a number from 1 to 16, and STEP_MEMORY_LIMIT, {limit!r}, an amount "
            "of memory such as 8Gi"
        ) from None
    if not times:
        return memory
    return f"{max(int(size), min(int(most), int(float(size) * by**times))) // 2**20}Mi"


def with_memory(pod: dict[str, Any], container: str, failures: Sequence[str]) -> str:
    """Gives the pod's `container` the memory that it is due after such `failures`; says what it changed, or nothing."""
    times = list(failures).count(Termination.OOM_KILLED.value)
    [found] = [one for one in pod["spec"]["containers"] if one["name"] == container]
    resources = found.get("resources") or {}
    before = (resources.get("limits") or {}).get("memory")
    if not times or not before:
        return ""
    after = grown(str(before), times)
    for kind in ("limits", "requests"):
        resources[kind] = dict(resources.get(kind) or {}) | {"memory": after}
    return f"out of memory {times} times before: it gets {after}, not {before}"
