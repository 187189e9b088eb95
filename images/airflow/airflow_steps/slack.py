"""Messages to Slack by its official provider. Without a Slack connection the task logs what it would have sent."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.slack.operators.slack import SlackAPIFileOperator, SlackAPIPostOperator
from airflow.sdk.exceptions import AirflowNotFoundException
from step_contract.commit import open_artifact

from airflow_steps.alerts import CONNECTION

if TYPE_CHECKING:
    from airflow.sdk import Context


class SlackMessage(SlackAPIPostOperator):
    """Posts `text` to `channel`."""

    def __init__(self, *, slack_conn_id: str = CONNECTION, **kwargs: Any) -> None:
        super().__init__(slack_conn_id=slack_conn_id, **kwargs)

    def execute(self, context: Context) -> None:
        """Posts the message; the response, which repeats it, is no XCom."""
        try:
            super().execute(context)
        except AirflowNotFoundException:
            self.log.info("no connection %s, so not sent to #%s: %s", self.slack_conn_id, self.channel, self.text)


class SlackPlot(SlackAPIFileOperator):
    """Sends the picture of the artifact whose manifest has the URI `artifact` to `channels`."""

    template_fields: Sequence[str] = (*SlackAPIFileOperator.template_fields, "artifact")

    def __init__(self, *, artifact: str, slack_conn_id: str = CONNECTION, **kwargs: Any) -> None:
        super().__init__(slack_conn_id=slack_conn_id, **kwargs)
        self.artifact = artifact

    def execute(self, context: Context) -> None:
        """Sends the picture; raises DataWrong where the artifact is damaged."""
        _, files = open_artifact(self.artifact)
        name, picture = next((name, data) for name, data in files.items() if name.endswith(".png"))
        with tempfile.TemporaryDirectory() as folder:
            self.filename = str(Path(folder, name))
            self.display_filename = name
            Path(self.filename).write_bytes(picture)
            try:
                super().execute(context)
            except AirflowNotFoundException:
                told = f"{name} ({len(picture)} bytes) with: {self.initial_comment}"
                self.log.info("no connection %s, so not sent to #%s: %s", self.slack_conn_id, self.channels, told)
