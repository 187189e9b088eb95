"""A step's outcome, whatever the step reported."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from airflow_steps.outcome import PermanentStepError, StepFailedError, verify_outcome
from airflow_steps.termination import ExitStatus
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from step_contract.commit import Content, commit
from step_contract.errors import ExitCode
from step_contract.store import Store


@given(st.binary(max_size=100))
@example(b'{"manifest": "x", "facts": null, "error": null}')
@example(b'{"manifest": "file:///a\\u0000/b/manifest.json", "facts": {}, "error": null}')
@example(b'{"manifest": "file:///etc/passwd", "facts": {}, "error": null}')
@example(b"[" * 4096)
@example(b"\xef\xbb\xbf{}")
def test_success_with_an_invalid_result_is_invalid_data(result: bytes) -> None:
    with pytest.raises(PermanentStepError) as error:
        verify_outcome("plot", ExitStatus(0, result, ()))
    assert error.value.termination == ExitCode.INVALID_DATA
    assert len(str(error.value)) < 1000


@given(st.binary(max_size=100), st.lists(st.text(max_size=20), max_size=3))
@example(b"", ["a\x00b\x1b[31m\ud800"])
@example(b"x" * 12288, [])
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_a_failed_steps_message_is_one_short_printable_line(result: bytes, lines: list[str]) -> None:
    with pytest.raises((PermanentStepError, StepFailedError)) as error:
        verify_outcome("plot", ExitStatus(65, result, tuple(lines)))
    assert str(error.value).isprintable() and len(str(error.value)) < 4500


def test_a_verified_artifact_is_the_steps_output_with_its_facts(tmp_path: Path) -> None:
    content = Content({"a.png": b"1", "b.json": b"2"}, 0, 1, {})
    uri = commit(Store(str(tmp_path)), "plots", step="plot", session=date(2026, 1, 15), inputs={}, content=content).uri
    result = json.dumps({"manifest": uri, "facts": {"rows": 3}, "error": None}).encode()
    output = verify_outcome("plot", ExitStatus(0, result, ()))
    assert (output.manifest, output.facts, output.files) == (uri, {"rows": 3}, ("a.png", "b.json"))
    with pytest.raises(PermanentStepError, match="is an artifact of plot"):
        verify_outcome("train", ExitStatus(0, result, ()))
