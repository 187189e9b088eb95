"""What the deployment sets, read when a DAG file is parsed: Airflow's configuration section `[market_daily]`.

A variable of the environment of the same name, in capitals, goes before it; that is how a run without a cluster is set.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from airflow.sdk.configuration import conf
from step_contract.errors import ConfigurationError

SECTION = "market_daily"


def setting(environment: Mapping[str, str], name: str) -> str:
    """The setting `name`; empty where it is not set."""
    return environment.get(name) or conf.get(SECTION, name.lower(), fallback="") or ""


def count(environment: Mapping[str, str], name: str, default: int) -> int:
    """The whole number that the setting `name` is, or `default`; raises ConfigurationError where it is none."""
    text = setting(environment, name) or str(default)
    if not text.isdecimal():
        raise ConfigurationError(f"{name} is {text!r} and must be a whole number")
    return int(text)


@dataclass(frozen=True)
class Settings:
    """The settings of one deployment. What is None is left to the step's own default.

    `monitor_enabled`: whether the monitor reports to Slack. `scheduled`: whether days run by themselves. `runner` runs the
    steps: `process`, `worker` or `triggerer`. `light_executor` runs the tasks that are no step; None: the default executor.
    `step_pods` is how many steps' pods one triggerer runs at once, `queue_seconds` how long a step may wait for its turn,
    `run_seconds` how long one may run that sets no limit itself.
    """

    artifacts: str | None
    symbol: str | None
    prices_url: str | None
    feeds: str | None
    history_years: str | None
    plot_language: str | None
    slack_channel: str
    monitor_enabled: bool
    scheduled: bool
    max_active_runs: int
    retries: int
    runner: str
    light_executor: str | None
    step_pods: int
    queue_seconds: int
    run_seconds: int

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """The settings; raises ConfigurationError where one is none of what it can be."""
        return cls(
            artifacts=setting(environment, "ARTIFACTS") or None,
            symbol=setting(environment, "SYMBOL") or None,
            prices_url=setting(environment, "PRICES_URL") or None,
            feeds=setting(environment, "FEEDS") or None,
            history_years=setting(environment, "HISTORY_YEARS") or None,
            plot_language=setting(environment, "PLOT_LANGUAGE") or None,
            slack_channel=setting(environment, "SLACK_CHANNEL") or "workflows",
            monitor_enabled=_one_of(environment, "MONITOR_ENABLED", ("false", "true")) == "true",
            scheduled=_one_of(environment, "SCHEDULED", ("true", "false")) == "true",
            max_active_runs=count(environment, "MAX_ACTIVE_RUNS", 1),
            retries=count(environment, "STEP_RETRIES", 3),
            runner=_one_of(environment, "STEP_RUNNER", ("process", "worker", "triggerer")),
            light_executor=setting(environment, "LIGHT_EXECUTOR") or None,
            step_pods=count(environment, "STEP_PODS", 8),
            queue_seconds=count(environment, "STEP_QUEUE_SECONDS", 6 * 3600),
            run_seconds=count(environment, "STEP_RUN_SECONDS", 24 * 3600),
        )


def _one_of(environment: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    text = setting(environment, name).lower() or known[0]
    if text not in known:
        raise ConfigurationError(f"{name} is {text!r} and must be one of {', '.join(known)}")
    return text
