"""A task's log: records with a time of their own, an operator that logs nothing, and Airflow's masking of secrets."""

from __future__ import annotations

import copy
import logging
from typing import Any, TypeVar

import structlog
from airflow.providers.common.compat.sdk import redact

Operator = TypeVar("Operator")
SILENT_LOGGER = logging.getLogger(f"{__name__}.silent")
SILENT_LOGGER.setLevel(logging.WARNING)

# The logger of a step's own lines. A line that is logged with `timestamp=`, an ISO 8601 time with microseconds and "Z", keeps
# that time instead of the current one. If two triggerers copy the same log, Airflow's UI drops the second of two equal lines.
# Relies on the processor MaybeTimeStamper in airflow.sdk.log, and on `_interleave_logs` in airflow.utils.log.file_task_handler.
step_log: Any = structlog.get_logger(logger_name="step")


def copy_silently(operator: Operator) -> Operator:
    """Return a shallow copy of the operator that logs warnings only.

    Relies on `_cached_logger` of airflow.sdk.definitions._internal.node, which the property `log` returns if it is set. If it
    is renamed, rename it here: otherwise every parse of a DAG file logs the creation of each step's pod.
    """
    silent: Any = copy.copy(operator)
    silent._cached_logger = SILENT_LOGGER
    result: Operator = silent
    return result


def redact_secrets(value: Any) -> Any:
    """Return a text, list or dictionary with `***` for what Airflow masks in logs: known secrets, and values by their names.

    Relies on `redact` of airflow.sdk.log, by the name that the common-compat provider gives it for all versions of Airflow.
    """
    return redact(value)
