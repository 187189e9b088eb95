"""A step as an Airflow task."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException
from step_contract.exit_codes import ConfigurationWrong

from airflow_steps.outcome import RETRY_POLICY, settle
from airflow_steps.process import StepProcess
from airflow_steps.step import command_line

if TYPE_CHECKING:
    from airflow.sdk import Context

RUNNER = "STEP_RUNNER"


class StepOperator(BaseOperator):
    """Runs one step of an image's program; succeeds only with an artifact that is there and whole.

    The URI of the artifact's manifest is the task's return value, small facts are the XCom `facts`. Where the step runs is
    the setting `STEP_RUNNER`: `process`, on this machine.

    :param image: the image, whose program has the same name: `collector`, `trainer`
    :param step: the program's step, such as `fetch-prices`
    :param options: the step's options by name, templated; those that are None are left to the step's own default
    """

    template_fields: Sequence[str] = ("options",)
    ui_color = "#dbe9f6"

    def __init__(self, *, image: str, step: str, options: Mapping[str, str | None], **kwargs: Any) -> None:
        super().__init__(**({"retry_policy": RETRY_POLICY} | kwargs))
        self.image = image
        self.step = step
        self.options = options
        self._running: StepProcess | None = None

    def execute(self, context: Context) -> str:
        """Runs the step to its end; returns the URI of its artifact's manifest. Raises as `settle` does."""
        arguments = command_line(self.step, self.options)
        self.log.info("%s %s", self.image, shlex.join(arguments))
        runner = os.environ.get(RUNNER, "process")
        if runner != "process":
            raise AirflowFailException(f"{RUNNER}={runner} is not known: it must be process")
        try:
            self._running = StepProcess(self.image, arguments)
        except ConfigurationWrong as error:
            raise AirflowFailException(str(error)) from error
        result = settle(self.step, self._running.run(self.log.info))
        context["ti"].xcom_push(key="facts", value=dict(result.facts))
        return str(result.manifest)

    def on_kill(self) -> None:
        """Ends the step when its task is cleared, marked or stopped."""
        if self._running:
            self._running.stop()
