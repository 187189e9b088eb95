from __future__ import annotations

import threading
import time
from datetime import date
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from airflow.sdk import DAG
from airflow.sdk.bases.operator import TriggerFailureReason
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, TaskDeferralTimeout
from airflow_steps.callbacks import on_task_failure, on_task_retry
from airflow_steps.operator import StepOperator
from airflow_steps.outcome import StepFailedError
from step_contract.commit import Committed, Content, commit
from step_contract.errors import ConfigurationError
from step_contract.result import Result
from step_contract.store import Store

from .conftest import Program


class WorkerTaskInstance:
    """Keeps the XComs that a task pushes."""

    dag_id, task_id, run_id, map_index, try_number, id = "market_daily", "fetch_prices", "manual", -1, 1, "01a1"

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: object) -> None:
        self.xcoms[key] = value


def make_step(**options: str | None) -> StepOperator:
    return StepOperator(program="collector", step="fetch-prices", options=options)


def run(step: StepOperator) -> tuple[str, dict[str, Any]]:
    ti = WorkerTaskInstance()
    return step.execute({"ti": ti}), ti.xcoms  # type: ignore[typeddict-item]


def commit_artifact(tmp_path: Path, step: str = "fetch-prices") -> Committed:
    content = Content({"prices.parquet": b"bytes"}, rows=1, schema_version=1, facts={"close": 5781.2})
    directory = "prices/symbol=KS11/session=2026-03-20"
    store = Store(f"file://{tmp_path}/artifacts")
    return commit(store, directory, step=step, session=date(2026, 3, 20), inputs={}, content=content)


def report(result: Result, code: int = 0) -> str:
    return f"open(os.environ['STEP_RESULT'], 'wb').write({result.to_json()!r}); sys.exit({code})"


def resume_after(step: StepOperator, failure: TriggerFailureReason) -> str:
    ti = WorkerTaskInstance()
    next_kwargs = {"error": failure, "traceback": ["Traceback: the trigger's"]}
    uri: str = step.resume_execution("__fail__", next_kwargs, {"ti": ti})  # type: ignore[typeddict-item]
    return uri


def test_a_worker_runs_the_step_if_its_trigger_failed(program: Program, tmp_path: Path) -> None:
    uri = commit_artifact(tmp_path).uri
    program(report(Result(uri)))
    assert resume_after(make_step(), TriggerFailureReason.TRIGGER_FAILURE) == uri


def test_a_worker_does_not_run_a_step_that_has_timed_out(program: Program, tmp_path: Path) -> None:
    program(report(Result(commit_artifact(tmp_path).uri)))
    with pytest.raises(TaskDeferralTimeout):
        resume_after(make_step(), TriggerFailureReason.TRIGGER_TIMEOUT)


def test_a_committed_step_succeeds_with_uri_and_facts(program: Program, tmp_path: Path) -> None:
    uri = commit_artifact(tmp_path).uri
    program(report(Result(uri, {"close": 5781.2})))
    assert run(make_step()) == (uri, {"return_value": uri, "facts": {"close": 5781.2}})


def test_a_mapped_step_commits_what_its_own_options_name(program: Program, tmp_path: Path) -> None:
    uri = commit_artifact(tmp_path).uri
    program(f"open({str(tmp_path / 'argv')!r}, 'w').write(repr(sys.argv[1:])); " + report(Result(uri)))
    with DAG("mapped", schedule=None):
        mapped = StepOperator.partial(task_id="fetch", program="collector", step="fetch-prices").expand(options=[{}])
    assert run(cast("StepOperator", mapped.unmap({"options": {"symbol": "KQ11"}})))[0] == uri
    assert (tmp_path / "argv").read_text() == repr(["fetch-prices", "--symbol", "KQ11"])


def make_step_with_callbacks(how: str) -> StepOperator:
    arguments: dict[str, Any] = {"program": "collector", "step": "fetch-prices"}
    callbacks: dict[str, Any] = {"on_failure_callback": print, "on_retry_callback": [print]}
    if how == "mapped":
        with DAG("mapped", schedule=None):
            mapped = StepOperator.partial(task_id="fetch", **arguments, **callbacks).expand(options=[{}])
        return cast("StepOperator", mapped.unmap({"options": {}}))
    if how == "default_args":
        return StepOperator(**arguments, options={}, default_args=callbacks)
    step = StepOperator(**arguments, options={}, **(callbacks if how == "argument" else {}))
    if how == "assigned":
        step.on_failure_callback, step.on_retry_callback = print, [print]  # type: ignore[assignment]
    return step


@pytest.mark.parametrize("how", ["argument", "default_args", "assigned", "mapped"])
def test_a_users_callbacks_are_called_after_those_that_record_failures(how: str) -> None:
    step = make_step_with_callbacks(how)
    assert (step.on_failure_callback, step.on_retry_callback) == ([on_task_failure, print], [on_task_retry, print])


def test_options_that_are_none_are_not_passed(program: Program, tmp_path: Path) -> None:
    uri = commit_artifact(tmp_path).uri
    program(f"open({str(tmp_path / 'argv')!r}, 'w').write(repr(sys.argv[1:])); " + report(Result(uri)))
    run(make_step(session="2026-03-20", prices_url="file:///{year}.csv", symbol=None))
    expected = ["fetch-prices", "--session", "2026-03-20", "--prices-url", "file:///{year}.csv"]
    assert (tmp_path / "argv").read_text() == repr(expected)


def test_airflows_environment_is_hidden_from_a_step(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://user:password@host/db")
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_CONN", "slack://:token@")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3")
    program(
        f"open({str(tmp_path / 'env')!r}, 'w').write(repr(dict(os.environ))); " + report(Result(commit_artifact(tmp_path).uri))
    )
    run(make_step())
    seen = (tmp_path / "env").read_text()
    assert "AIRFLOW" not in seen and "password" not in seen and "AWS_ENDPOINT_URL" in seen


def commit_damaged_artifact(tmp_path: Path) -> str:
    committed = commit_artifact(tmp_path)
    file = Path(committed.uri.removeprefix("file://")).parent / committed.manifest.files[0].path
    file.write_bytes(b"other")
    return committed.uri


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (lambda tmp: "pass", "invalid step result"),
        (lambda tmp: report(Result()), "names no artifact"),
        (lambda tmp: report(Result(f"file://{tmp}/artifacts/prices/manifest.json")), "is missing"),
        (lambda tmp: report(Result(commit_damaged_artifact(tmp))), "is altered"),
        (lambda tmp: report(Result(commit_artifact(tmp, "decide").uri)), "is an artifact of decide"),
    ],
    ids=["no result", "no artifact", "missing artifact", "damaged artifact", "another step's artifact"],
)
def test_success_without_a_complete_artifact_is_failure(code: Any, message: str, program: Program, tmp_path: Path) -> None:
    program(code(tmp_path))
    with pytest.raises(AirflowFailException, match=message):
        run(make_step())


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (65, AirflowFailException),
        (78, AirflowFailException),
        (69, StepFailedError),
        (75, StepFailedError),
        (99, AirflowSkipException),
        (1, StepFailedError),
    ],
)
def test_an_exit_code_raises_its_exception_with_the_steps_message(code: int, error: type[Exception], program: Program) -> None:
    program(report(Result(error="line 10, column Close: 'x' is not a number"), code))
    with pytest.raises(error, match="fetch-prices: line 10, column Close: 'x' is not a number"):
        run(make_step())


def test_without_a_result_the_last_line_and_code_are_reported(program: Program) -> None:
    program("print('Traceback'); print('ZeroDivisionError: division by zero'); sys.exit(1)")
    with pytest.raises(AirflowException, match=r"ZeroDivisionError: division by zero.*exit code 1"):
        run(make_step())


def test_a_killed_task_leaves_no_process(program: Program, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    program(
        f"import subprocess; c = subprocess.Popen(['sleep', '60']); open({str(pid)!r}, 'w').write(f'{{c.pid}}\\n'); c.wait()"
    )
    step, errors = make_step(), []

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


def test_a_missing_program_is_reported(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEP_ENVIRONMENTS", "/nowhere")
    with pytest.raises(AirflowFailException, match=r"/nowhere/collector/bin/collector"):
        run(make_step())


def test_an_unknown_runner_is_an_error_at_parse_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEP_RUNNER", "carrier-pigeon")
    with pytest.raises(ConfigurationError, match=r"carrier-pigeon.*process, worker, triggerer"):
        make_step()


def test_the_tasks_own_variables_reach_a_local_process(program: Program, tmp_path: Path) -> None:
    program(f"open({str(tmp_path / 'env')!r}, 'w').write(os.environ['LOSS']); " + report(Result(commit_artifact(tmp_path).uri)))
    step = StepOperator(program="collector", step="fetch-prices", options={}, env_vars={"LOSS": "huber"})
    run(step)
    assert (tmp_path / "env").read_text() == "huber"
