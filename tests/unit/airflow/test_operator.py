from __future__ import annotations

import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from airflow_steps.operator import StepOperator
from airflow_steps.retry_policy import StepFailed
from step_contract.commit import Committed, Content, commit
from step_contract.errors import ConfigurationError
from step_contract.result import Result
from step_contract.store import Store

from .conftest import Program


class TaskInstance:
    """Keeps what a task pushes, as Airflow would."""

    dag_id, task_id = "market_daily", "fetch_prices"

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: object) -> None:
        self.pushed[key] = value


def operator(**options: str) -> StepOperator:
    return StepOperator(task_id="fetch_prices", program="collector", step="fetch-prices", options=options)


def run(step: StepOperator) -> tuple[str, dict[str, Any]]:
    ti = TaskInstance()
    return step.execute({"ti": ti}), ti.pushed  # type: ignore[typeddict-item]


def artifact(tmp_path: Path, step: str = "fetch-prices") -> Committed:
    content = Content({"prices.parquet": b"bytes"}, rows=1, schema_version=1, facts={"close": 5781.2})
    directory = "prices/symbol=KS11/session=2026-03-20"
    store = Store(f"file://{tmp_path}/artifacts")
    return commit(store, directory, step=step, session=date(2026, 3, 20), inputs={}, content=content)


def hand_over(result: Result, code: int = 0) -> str:
    return f"open(os.environ['STEP_RESULT'], 'wb').write({result.to_json()!r}); sys.exit({code})"


def test_a_step_that_committed_succeeds_with_its_uri_and_facts(program: Program, tmp_path: Path) -> None:
    uri = artifact(tmp_path).uri
    program(hand_over(Result(uri, {"close": 5781.2})))
    assert run(operator()) == (uri, {"return_value": uri, "facts": {"close": 5781.2}})


def test_the_step_gets_its_options_and_none_that_are_left_to_its_default(program: Program, tmp_path: Path) -> None:
    uri = artifact(tmp_path).uri
    program(f"open({str(tmp_path / 'argv')!r}, 'w').write(repr(sys.argv[1:])); " + hand_over(Result(uri)))
    run(operator(session="2026-03-20", prices_url="file:///{year}.csv", symbol=None))  # type: ignore[arg-type]
    expected = ["fetch-prices", "--session", "2026-03-20", "--prices-url", "file:///{year}.csv"]
    assert (tmp_path / "argv").read_text() == repr(expected)


def test_a_step_sees_nothing_of_airflows_environment(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://user:password@host/db")
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_CONN", "slack://:token@")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3")
    program(f"open({str(tmp_path / 'env')!r}, 'w').write(repr(dict(os.environ))); " + hand_over(Result(artifact(tmp_path).uri)))
    run(operator())
    seen = (tmp_path / "env").read_text()
    assert "AIRFLOW" not in seen and "password" not in seen and "AWS_ENDPOINT_URL" in seen


def damaged(tmp_path: Path) -> str:
    committed = artifact(tmp_path)
    file = Path(committed.uri.removeprefix("file://")).parent / committed.manifest.files[0].path
    file.write_bytes(b"other")
    return committed.uri


@pytest.mark.parametrize(
    ("code", "named"),
    [
        (lambda tmp: "pass", "not one"),
        (lambda tmp: hand_over(Result()), "names no artifact"),
        (lambda tmp: hand_over(Result(f"file://{tmp}/artifacts/prices/manifest.json")), "is missing"),
        (lambda tmp: hand_over(Result(damaged(tmp))), "is altered"),
        (lambda tmp: hand_over(Result(artifact(tmp, "decide").uri)), "is an artifact of decide"),
    ],
    ids=["no result", "no artifact", "missing artifact", "damaged artifact", "another step's artifact"],
)
def test_success_without_an_artifact_that_is_whole_is_failure(code: Any, named: str, program: Program, tmp_path: Path) -> None:
    program(code(tmp_path))
    with pytest.raises(AirflowFailException, match=named):
        run(operator())


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (65, AirflowFailException),
        (78, AirflowFailException),
        (69, StepFailed),
        (75, StepFailed),
        (99, AirflowSkipException),
        (1, StepFailed),
    ],
)
def test_an_exit_code_becomes_its_exception_with_the_steps_own_sentence(
    code: int, error: type[Exception], program: Program
) -> None:
    program(hand_over(Result(error="line 10, column Close: 'x' is not a number"), code))
    with pytest.raises(error, match="fetch-prices: line 10, column Close: 'x' is not a number"):
        run(operator())


def test_a_step_that_hands_over_nothing_is_told_by_its_last_line_and_code(program: Program) -> None:
    program("print('Traceback'); print('ZeroDivisionError: division by zero'); sys.exit(1)")
    with pytest.raises(AirflowException, match=r"ZeroDivisionError: division by zero.*exit code 1"):
        run(operator())


def test_a_killed_task_leaves_no_process_of_its_step(program: Program, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    program(
        f"import subprocess; c = subprocess.Popen(['sleep', '60']); open({str(pid)!r}, 'w').write(f'{{c.pid}}\\n'); c.wait()"
    )
    step, errors = operator(), []

    def execute() -> None:
        try:
            run(step)
        except AirflowException as error:
            errors.append(error)

    running = threading.Thread(target=execute)
    running.start()
    deadline = time.monotonic() + 20
    while not (pid.exists() and pid.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    step.on_kill()
    running.join(20)
    assert errors and "SIGTERM" in str(errors[0])
    child = int(pid.read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_program_that_is_not_installed_is_told(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEP_ENVIRONMENTS", "/nowhere")
    with pytest.raises(AirflowFailException, match=r"/nowhere/collector/bin/collector"):
        run(operator())


def test_a_runner_that_is_not_known_is_told_when_the_file_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEP_RUNNER", "carrier-pigeon")
    with pytest.raises(ConfigurationError, match=r"carrier-pigeon.*process, worker, triggerer"):
        operator()
