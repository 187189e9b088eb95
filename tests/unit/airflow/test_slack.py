from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import pendulum
import pytest
from airflow_steps.alerts import tell_failure, tell_late, tell_retry
from airflow_steps.failure import StepFailed
from airflow_steps.slack import SlackMessage, SlackPlot
from step_contract.commit import Content, commit
from step_contract.exit_codes import Cause, DataWrong, Exit
from step_contract.store import Store

PICTURE = b"\x89PNG a picture"


class Slack(BaseHTTPRequestHandler):
    """Slack's HTTP interface, as far as the provider calls it; keeps every request."""

    received: list[tuple[str, dict[str, str], bytes]]
    refusals: list[int]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.received.append((self.path, dict(self.headers), body))
        base = f"http://{self.headers['Host']}"
        answer = {
            "ok": True,
            "upload_url": f"{base}/upload",
            "file_id": "F1",
            "files": [{"id": "F1"}],
            "channels": [{"id": "C1", "name": "workflows"}],
        }
        data = json.dumps(answer).encode()
        status = self.refusals.pop() if self.refusals else 200
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST

    def log_message(self, format: str, *values: object) -> None:
        pass


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, dict[str, str], bytes]]]:
    Slack.received, Slack.refusals = [], []
    with ThreadingHTTPServer(("127.0.0.1", 0), Slack) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base_url = f"http://127.0.0.1:{server.server_address[1]}/api/"
        connection = {"conn_type": "slack", "password": "xoxb-test", "extra": {"base_url": base_url, "timeout": 10}}
        monkeypatch.setenv("AIRFLOW_CONN_SLACK_CONN", json.dumps(connection))
        yield Slack.received
        server.shutdown()


@pytest.fixture
def plot(tmp_path: Path) -> str:
    content = Content({"forecast.png": PICTURE}, rows=0, schema_version=1, facts={})
    store = Store(f"file://{tmp_path}/artifacts")
    session = date(2026, 1, 15)
    return commit(store, "plots/session=2026-01-15", step="plot", session=session, inputs={}, content=content).uri


def message() -> SlackMessage:
    return SlackMessage(task_id="tell_closed", channel="workflows", text="2026-03-01: market closed: a Sunday")


def send(plot: str) -> SlackPlot:
    return SlackPlot(task_id="send_plot", channels="workflows", artifact=plot, initial_comment="2026-01-15: the forecast")


def fields(body: bytes) -> dict[str, str]:
    if body.startswith(b"{"):
        return {name: str(value) for name, value in json.loads(body).items()}
    return {name: values[0] for name, values in parse_qs(body.decode()).items()}


def test_a_message_reaches_its_channel_with_the_connections_token(slack: list[tuple[str, dict[str, str], bytes]]) -> None:
    message().execute({})
    [(path, headers, body)] = slack
    assert path.endswith("chat.postMessage")
    assert headers["Authorization"] == "Bearer xoxb-test"
    assert (fields(body)["channel"], fields(body)["text"]) == ("workflows", "2026-03-01: market closed: a Sunday")


def test_the_plot_reaches_slack_byte_for_byte(slack: list[tuple[str, dict[str, str], bytes]], plot: str) -> None:
    send(plot).execute({})
    uploads = [body for path, _, body in slack if path == "/upload"]
    completed = [fields(body) for path, _, body in slack if path.endswith("files.completeUploadExternal")]
    assert len(uploads) == 1 and PICTURE in uploads[0]
    assert completed[0]["initial_comment"] == "2026-01-15: the forecast"


def test_without_a_connection_the_log_says_what_would_have_been_sent_and_the_task_succeeds(
    plot: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_SLACK_CONN", raising=False)
    caplog.set_level("INFO")
    message().execute({})
    send(plot).execute({})
    logged = caplog.text + capsys.readouterr().out
    assert "not sent to #workflows: 2026-03-01: market closed: a Sunday" in logged
    assert "forecast.png" in logged and "2026-01-15: the forecast" in logged


def test_a_damaged_plot_is_not_sent(slack: list[tuple[str, dict[str, str], bytes]], plot: str) -> None:
    [picture] = Path(plot.removeprefix("file://")).parent.rglob("*.png")
    picture.write_bytes(b"something else")
    with pytest.raises(DataWrong, match=r"altered|torn"):
        send(plot).execute({})
    assert slack == []


def context(error: Exception, task: str = "fetch_prices") -> Any:
    this = SimpleNamespace(task_id=task, try_number=1, log_url="http://airflow/log?run_id=session__2026-01-16&try_number=1")
    dag = SimpleNamespace(timezone=pendulum.timezone("Asia/Seoul"))
    # Ten to midnight in London is the next day in Seoul.
    return {"ti": this, "exception": error, "dag": dag, "logical_date": datetime(2026, 1, 15, 23, 50, tzinfo=UTC)}


def texts(slack: list[tuple[str, dict[str, str], bytes]]) -> list[str]:
    return [fields(body)["text"] for _, _, body in slack]


def test_a_failed_task_is_told_with_its_session_the_reason_in_one_line_and_its_log(
    slack: list[tuple[str, dict[str, str], bytes]],
) -> None:
    tell_failure(context(StepFailed("fetch-prices: line 10\n<b> & more", Cause.FAULT, 4)))
    [text] = texts(slack)
    assert text == (
        ":x: *2026-01-16 fetch_prices* failed (try 1): fetch-prices: line 10 &lt;b&gt; &amp; more "
        "<http://airflow/log?run_id=session__2026-01-16&try_number=1|log>"
    )
    tell_failure(context(StepFailed("word " * 10_000, Cause.FAULT, 4)))
    assert len(texts(slack)[1]) < 3000


def test_a_source_that_is_down_all_evening_is_told_once_and_again_when_it_is_given_up(
    slack: list[tuple[str, dict[str, str], bytes]],
) -> None:
    for times in range(1, 12):
        tell_retry(context(StepFailed("the source is down", Exit.SOURCE_NOT_READY, times)))
    tell_failure(context(StepFailed("the source is down", Exit.SOURCE_NOT_READY, 12)))
    assert [text.split("*")[2].split("(")[0].strip() for text in texts(slack)] == ["will be tried again", "failed"]


def test_a_run_that_took_too_long_is_told_and_one_whose_task_failed_not_again(
    slack: list[tuple[str, dict[str, str], bytes]],
) -> None:
    run = SimpleNamespace(dag_id="market_daily", run_id="session__2026-01-15")
    tell_late({"dag_run": run, "reason": "task_failure"})  # type: ignore[typeddict-item, typeddict-unknown-key]
    tell_late({"dag_run": run, "reason": "timed_out"})  # type: ignore[typeddict-item, typeddict-unknown-key]
    [text] = texts(slack)
    assert "market_daily session__2026-01-15* took longer than it may" in text


def test_a_slack_that_throttles_is_asked_again_after_the_time_it_names(slack: list[tuple[str, dict[str, str], bytes]]) -> None:
    Slack.refusals = [429]
    started = time.monotonic()
    tell_failure(context(StepFailed("x", Cause.FAULT, 4)))
    assert (len(slack), time.monotonic() - started >= 1) == (2, True)


@pytest.mark.parametrize("trouble", ["down", "fault", "none"])
def test_a_task_ends_as_it_ends_whatever_slack_does_and_its_log_keeps_what_was_to_be_told(
    trouble: str,
    slack: list[tuple[str, dict[str, str], bytes]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("INFO")
    if trouble == "down":
        connection = {"conn_type": "slack", "password": "xoxb-test", "extra": {"base_url": "http://127.0.0.1:9/api/"}}
        monkeypatch.setenv("AIRFLOW_CONN_SLACK_CONN", json.dumps(connection))
    elif trouble == "none":
        monkeypatch.delenv("AIRFLOW_CONN_SLACK_CONN")
    else:
        Slack.refusals = [500] * 10
    tell_failure(context(StepFailed("a fault of its own", Cause.FAULT, 4)))
    logged = caplog.text + capsys.readouterr().out
    assert "2026-01-16 fetch_prices* failed (try 1): a fault of its own" in logged
    assert "xoxb-test" not in logged
