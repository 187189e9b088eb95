from __future__ import annotations

import threading
import time
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow_steps import lineage_events
from airflow_steps.lineage_events import DatasetName, EventSender, emit_completion, list_inputs, name_dataset
from airflow_steps.operator import StepOperator
from airflow_steps.outcome import StepOutput, verify_outcome
from airflow_steps.termination import ExitStatus
from step_contract.commit import Content, commit
from step_contract.lineage.sources import Source, SourceList, source_of_file
from step_contract.result import Result
from step_contract.store import Store

MODEL = "s3://market/artifacts/models/symbol=KS11/session=2026-01-15/config=a1/manifest.json"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (MODEL, DatasetName("s3://market", "artifacts/models/symbol=KS11/session=2026-01-15/config=a1/manifest.json")),
        ("file:///mirror/2026.csv", DatasetName("file", "/mirror/2026.csv")),
        ("https://host:8443/a/2026.csv", DatasetName("https://host:8443", "/a/2026.csv")),
        ("https://host", DatasetName("https://host", "/")),
        ("file:///mirror/a?b#c/2026.csv", DatasetName("file", "/mirror/a?b#c/2026.csv")),
        ("s3://market/a?b#c/2026.csv", DatasetName("s3://market", "a?b#c/2026.csv")),
    ],
)
def test_datasets_are_named_by_openlineages_convention(uri: str, expected: DatasetName) -> None:
    assert name_dataset(uri) == expected


def test_inputs_are_the_sources_and_a_long_list_is_its_directory() -> None:
    sources = (Source("model", MODEL, "ab"), SourceList("prices", "prices.sha256", "s3://market/artifacts", 7700))
    assert list_inputs(sources) == [
        name_dataset(MODEL, "ab"),
        DatasetName("s3://market", "artifacts/prices"),
    ]


@pytest.fixture
def output(tmp_path: Path) -> StepOutput:
    store = Store(f"file://{tmp_path}")
    content = Content({}, 0, 1, {}, [source_of_file("source", "https://user:secret@host/2026.csv?key=secret", b"")])
    uri = commit(store, "decisions", step="decide", session=date(2026, 1, 15), inputs={}, content=content).uri
    return verify_outcome("decide", ExitStatus(0, Result(uri).to_json(), ()))


def test_a_step_in_a_worker_gives_the_provider_its_datasets(output: StepOutput) -> None:
    step = StepOperator(program="collector", step="decide", options={}, runner="process")
    assert step.get_openlineage_facets_on_complete(None) is None
    step.step_output = output
    facets = step.get_openlineage_facets_on_complete(None)
    assert [(dataset.namespace, dataset.name) for dataset in facets.inputs] == [("https://host", "/2026.csv")]
    assert facets.inputs[0].facets["version"].datasetVersion == output.sources[0].sha256  # type: ignore[union-attr]
    assert [(dataset.namespace, dataset.name) for dataset in facets.outputs] == [
        ("file", output.manifest.removeprefix("file://"))
    ]


def test_a_sender_never_blocks_and_drops_what_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lineage_events, "MAX_WAITING", 3)
    sender, release, sent = EventSender(), threading.Event(), list[int]()
    started = time.monotonic()

    def wait() -> None:
        release.wait(20)

    submitted = [sender.submit(wait)]
    submitted += [sender.submit(lambda number=number: sent.append(number)) for number in range(10)]  # type: ignore[misc]
    assert time.monotonic() - started < 5
    assert submitted.count(True) in (3, 4) and "1 OpenLineage events were dropped" in caplog.text
    release.set()
    deadline = time.monotonic() + 10
    while len(sent) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sent == sorted(sent) and len(sent) >= 2


def test_an_event_that_cannot_be_sent_does_not_stop_the_next_one(caplog: pytest.LogCaptureFixture) -> None:
    sender, sent = EventSender(), threading.Event()

    def fail() -> None:
        raise ZeroDivisionError

    sender.submit(fail)
    sender.submit(sent.set)
    assert sent.wait(10) and "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"AIRFLOW__OPENLINEAGE__TRANSPORT": '{"type": "console"}'}, True),
        ({"AIRFLOW__OPENLINEAGE__TRANSPORT": '{"type": "console"}', "AIRFLOW__OPENLINEAGE__DISABLED": "True"}, False),
    ],
)
def test_internals_events_are_emitted_only_if_enabled(
    variables: dict[str, str], expected: bool, output: StepOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted: list[Any] = []
    monkeypatch.setattr(lineage_events, "SENDER", SimpleNamespace(submit=submitted.append))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    emit_completion(None, output, datetime.now(UTC))
    assert bool(submitted) is expected


def test_internals_the_provider_has_what_is_used_of_it() -> None:
    from airflow.providers.openlineage.api import emit
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.providers.openlineage.plugins import macros

    names = ("job_namespace", "job_name", "run_id", "root_run_id", "root_job_name", "root_job_namespace")
    assert all(callable(getattr(macros, f"lineage_{name}")) for name in names) and callable(emit)
    assert OperatorLineage(inputs=[], outputs=[]).inputs == []
