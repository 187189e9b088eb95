"""The deployment's settings, read when a DAG file is parsed: the section `[market_daily]` of Airflow's configuration.

An environment variable of the same name in capitals takes precedence; `make run` sets those. Settings of pods are read in
`pods.spec`, those of retries in `retry_policy`, the monitor's in `airflow_monitor.__main__`. docs/settings.md lists all, and
helm/namespace-policies/values.schema.json validates those of a cluster.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import time, timedelta
from typing import Any

from airflow.sdk.configuration import conf
from step_contract.errors import ConfigurationError
from step_contract.training_days import DEFAULT_TRAINING_DAYS, parse_training_days

from airflow_steps.indexes import parse_symbols

SECTION = "market_daily"
# A comma before the next name; other commas belong to a value, such as the hosts of NO_PROXY.
VARIABLE_SEPARATOR = re.compile(r",\s*(?=[A-Za-z_][A-Za-z0-9_]*=)")
VARIABLE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>.*)", re.DOTALL)
OPERATOR_PREFIX = "STEP_"


def get_setting(environment: Mapping[str, str], name: str) -> str:
    """Return the setting `name`, or "" if it is not set."""
    return environment.get(name) or conf.get(SECTION, name.lower(), fallback="") or ""


def get_int(environment: Mapping[str, str], name: str, default: int) -> int:
    """Return the setting `name` as a whole number. Raises ConfigurationError if it is not one."""
    text = get_setting(environment, name) or str(default)
    if not text.isdecimal():
        raise ConfigurationError(f"invalid {name} {text!r}: must be a whole number")
    return int(text)


def get_choice(environment: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    """Return the setting `name`, by default the first of `choices`. Raises ConfigurationError for any other value."""
    text = get_setting(environment, name).lower() or choices[0]
    if text not in choices:
        raise ConfigurationError(f"invalid {name} {text!r}: must be one of {', '.join(choices)}")
    return text


def get_list(environment: Mapping[str, str], name: str) -> list[str]:
    """Return the entries of the setting `name`, which commas separate."""
    return [entry.strip() for entry in get_setting(environment, name).split(",") if entry.strip()]


def get_pairs(environment: Mapping[str, str], name: str) -> dict[str, str]:
    """Return the pairs of the setting `name`. Raises ConfigurationError if an entry is no pair."""
    pairs = [entry.partition("=") for entry in get_list(environment, name)]
    if not all(key and value for key, _, value in pairs):
        text = get_setting(environment, name)
        raise ConfigurationError(f"invalid {name} {text!r}: must be key=value, separated by commas")
    return {key.strip(): value.strip() for key, _, value in pairs}


def get_variables(environment: Mapping[str, str], name: str) -> dict[str, str]:
    """Return the environment variables of the setting `name`, written as NAME=value and separated by commas.

    Raises ConfigurationError if the setting is written otherwise, or sets a variable that the operator sets.
    """
    text = get_setting(environment, name).strip()
    matches = [VARIABLE.fullmatch(entry) for entry in VARIABLE_SEPARATOR.split(text)] if text else []
    if not all(matches):
        raise ConfigurationError(f"invalid {name} {text!r}: must be NAME=value, separated by commas")
    variables = {match["name"]: match["value"].strip() for match in matches if match}
    if reserved := [variable for variable in variables if variable.startswith(OPERATOR_PREFIX)]:
        raise ConfigurationError(f"invalid {name}: {reserved[0]} is set by the operator; remove it")
    return variables


def get_schedule_time(environment: Mapping[str, str]) -> time:
    """Return the time of day of the scheduled run, in the exchange's time zone. Raises ConfigurationError if it is invalid."""
    text = get_setting(environment, "SCHEDULE_TIME") or "18:00"
    hour, _, minute = text.partition(":")
    try:
        return time(int(hour), int(minute))
    except ValueError:
        raise ConfigurationError(f"invalid SCHEDULE_TIME {text!r}: must be HH:MM, such as 18:00") from None


@dataclass(frozen=True)
class Settings:
    """The settings of one deployment; docs/settings.md describes each.

    None leaves the value to the step's own default, for `light_executor` to Airflow's.
    """

    artifacts: str | None
    symbols: tuple[str, ...]
    prices_url: str | None
    feeds: str | None
    history_years: str | None
    plot_language: str | None
    slack_channel: str
    monitor_enabled: bool
    completion_broadcast_enabled: bool
    schedule_enabled: bool
    schedule_time: time
    training_days: tuple[str, ...]
    max_active_runs: int
    retries: int
    runner: str
    light_executor: str | None
    max_pods: int
    queue_timeout_seconds: int
    run_timeout_seconds: int

    @property
    def light_task(self) -> dict[str, Any]:
        """Arguments for a task that is not a step and takes a moment, such as a branch: its executor, and quick retries.

        LocalExecutor's tasks are lost with their scheduler.
        """
        retries = {"retries": 6, "retry_delay": timedelta(seconds=10), "retry_exponential_backoff": 2.0}
        return {"executor": self.light_executor, "max_retry_delay": timedelta(minutes=2)} | retries

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Return the settings. Raises ConfigurationError if one of them is invalid."""
        return cls(
            artifacts=get_setting(environment, "ARTIFACTS") or None,
            symbols=parse_symbols(get_setting(environment, "SYMBOLS"), get_setting(environment, "SYMBOL")),
            prices_url=get_setting(environment, "PRICES_URL") or None,
            feeds=get_setting(environment, "FEEDS") or None,
            history_years=get_setting(environment, "HISTORY_YEARS") or None,
            plot_language=get_setting(environment, "PLOT_LANGUAGE") or None,
            slack_channel=get_setting(environment, "SLACK_CHANNEL") or "workflows",
            monitor_enabled=get_choice(environment, "MONITOR_ENABLED", ("false", "true")) == "true",
            completion_broadcast_enabled=get_choice(environment, "COMPLETION_BROADCAST_ENABLED", ("true", "false")) == "true",
            schedule_enabled=get_choice(environment, "SCHEDULE_ENABLED", ("true", "false")) == "true",
            schedule_time=get_schedule_time(environment),
            training_days=parse_training_days(get_setting(environment, "TRAINING_DAYS") or DEFAULT_TRAINING_DAYS),
            max_active_runs=get_int(environment, "MAX_ACTIVE_RUNS", 1),
            retries=get_int(environment, "STEP_RETRIES", 3),
            runner=get_choice(environment, "STEP_RUNNER", ("process", "worker", "triggerer")),
            light_executor=get_setting(environment, "LIGHT_EXECUTOR") or None,
            max_pods=get_int(environment, "STEP_MAX_PODS", 8),
            queue_timeout_seconds=get_int(environment, "STEP_QUEUE_TIMEOUT_SECONDS", 6 * 3600),
            run_timeout_seconds=get_int(environment, "STEP_RUN_TIMEOUT_SECONDS", 24 * 3600),
        )
