"""What the deployment sets, all of it in the environment of Airflow's own containers, read when a DAG file is parsed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from step_contract.exit_codes import ConfigurationWrong


@dataclass(frozen=True)
class Settings:
    """The settings of one deployment. What is None is left to the step's own default."""

    artifacts: str | None
    symbol: str | None
    prices_url: str | None
    feeds: str | None
    history_years: str | None
    slack_channel: str
    max_active_runs: int
    retries: int

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """The settings in `environment`; raises ConfigurationWrong where a number is none."""
        return cls(
            artifacts=environment.get("ARTIFACTS") or None,
            symbol=environment.get("SYMBOL") or None,
            prices_url=environment.get("PRICES_URL") or None,
            feeds=environment.get("FEEDS") or None,
            history_years=environment.get("HISTORY_YEARS") or None,
            slack_channel=environment.get("SLACK_CHANNEL") or "workflows",
            max_active_runs=_count(environment, "MAX_ACTIVE_RUNS", 1),
            retries=_count(environment, "STEP_RETRIES", 3),
        )


def _count(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isdecimal():
        raise ConfigurationWrong(f"{name} is {text!r} and must be a whole number")
    return int(text)
