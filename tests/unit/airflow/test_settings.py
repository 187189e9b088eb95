from __future__ import annotations

from datetime import time

import pytest
from airflow_steps.settings import Settings
from step_contract.errors import ConfigurationError


def test_an_unset_or_empty_setting_is_left_to_the_step() -> None:
    settings = Settings.read({"SYMBOL": "", "ARTIFACTS": "s3://market", "MAX_ACTIVE_RUNS": "4"})
    assert (settings.artifacts, settings.symbols, settings.prices_url) == ("s3://market", (), None)
    assert (settings.max_active_runs, settings.retries, settings.slack_channel) == (4, 3, "workflows")


@pytest.mark.parametrize("name", ["MAX_ACTIVE_RUNS", "STEP_RETRIES"])
def test_an_invalid_number_is_reported_with_its_name(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"invalid {name} 'many'"):
        Settings.read({name: "many"})


def test_the_schedule_time_is_a_time_of_day() -> None:
    assert Settings.read({}).schedule_time == time(18)
    assert Settings.read({"SCHEDULE_TIME": "19:30"}).schedule_time == time(19, 30)
    for value in ("19", "24:00", "evening"):
        with pytest.raises(ConfigurationError, match=f"invalid SCHEDULE_TIME '{value}'"):
            Settings.read({"SCHEDULE_TIME": value})
