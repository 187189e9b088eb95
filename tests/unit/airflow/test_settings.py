from __future__ import annotations

import pytest
from airflow_steps.settings import Settings
from step_contract.errors import ConfigurationError


def test_what_is_not_set_is_left_to_the_step_and_an_empty_variable_is_not_set() -> None:
    settings = Settings.read({"SYMBOL": "", "ARTIFACTS": "s3://market", "MAX_ACTIVE_RUNS": "4"})
    assert (settings.artifacts, settings.symbol, settings.prices_url) == ("s3://market", None, None)
    assert (settings.max_active_runs, settings.retries, settings.slack_channel) == (4, 3, "workflows")


@pytest.mark.parametrize("name", ["MAX_ACTIVE_RUNS", "STEP_RETRIES"])
def test_a_number_that_is_none_is_told_by_its_name(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is 'many'"):
        Settings.read({name: "many"})
