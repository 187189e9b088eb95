from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from airflow_steps.slack import SlackMessage, SlackPlot
from step_contract.commit import Content, commit
from step_contract.exit_codes import DataWrong
from step_contract.store import Store

PICTURE = b"\x89PNG a picture"


class Slack(BaseHTTPRequestHandler):
    """Slack's HTTP interface, as far as the provider calls it; keeps every request."""

    received: list[tuple[str, dict[str, str], bytes]]

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
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST

    def log_message(self, format: str, *values: object) -> None:
        pass


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, dict[str, str], bytes]]]:
    Slack.received = []
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
