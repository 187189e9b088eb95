from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from step_contract import paths
from step_contract.cli import Parser, add_common_options, make_parser, run_step
from step_contract.errors import (
    RETRY_RULES,
    DataError,
    ExitCode,
    NothingToDoError,
    SourceUnavailableError,
    Termination,
    TransientError,
    classify_exit_code,
)
from step_contract.manifest import Fact
from step_contract.result import MAX_BYTES, Result, describe_platform


def make_test_parser(step: Callable[[argparse.Namespace], Result]) -> Parser:
    parser, add = make_parser("collector", "Collects.")
    add_common_options(add("fetch", step, "Fetch.", "Fetches."))
    return parser


def succeed(options: argparse.Namespace) -> Result:
    return Result(manifest="file:///m/manifest.json", facts={"symbol": options.symbol, "session": str(options.session)})


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("SESSION", "ARTIFACTS", "SYMBOL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STEP_RESULT", str(tmp_path / "result.json"))
    return tmp_path / "result.json"


def test_the_platform_line_names_the_architectures_of_image_and_node(tmp_path: Path) -> None:
    built, other = platform.machine(), tmp_path / "arch"
    other.write_text("riscv64\n")
    assert describe_platform(other) == f"image {built}, node riscv64 (emulated)"
    other.write_text(f"{built}\n")
    assert describe_platform(other) == f"image {built}, node {built}"
    assert describe_platform(tmp_path / "nothing") == f"image {built}, node unknown"


def test_the_result_is_written_to_the_file_in_step_result(result: Path, tmp_path: Path) -> None:
    assert run_step(lambda: make_test_parser(succeed), ["fetch", "--session", "2026-03-20", "--artifacts", str(tmp_path)]) == 0
    assert Result.from_json(result.read_bytes()).facts == {"symbol": "KS11", "session": "2026-03-20"}


def test_the_command_line_takes_precedence_over_the_environment(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("SESSION", "2026-03-20"), ("ARTIFACTS", str(tmp_path)), ("SYMBOL", "KQ11")):
        monkeypatch.setenv(name, value)
    assert run_step(lambda: make_test_parser(succeed), ["fetch", "--session", "2026-03-19"]) == 0
    assert Result.from_json(result.read_bytes()).facts == {"symbol": "KQ11", "session": "2026-03-19"}


@pytest.mark.parametrize("error", [DataError, SourceUnavailableError, TransientError, NothingToDoError])
def test_an_error_gives_its_exit_code_a_sentence_and_a_result(
    error: type[DataError], result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: argparse.Namespace) -> Result:
        raise error("the file is wrong; look at it")

    code = run_step(lambda: make_test_parser(fail), ["fetch", "--session", "2026-03-20", "--artifacts", str(tmp_path)])
    assert code == error.code
    assert capsys.readouterr().err == "collector fetch: the file is wrong; look at it\n"
    assert Result.from_json(result.read_bytes()).error == "the file is wrong; look at it"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["fetch", "--artifacts", "/tmp"], "--session"),
        (["fetch", "--session", "2026-3-20", "--artifacts", "/tmp"], "YYYY-MM-DD"),
        (["fetch", "--session", "2026-02-30", "--artifacts", "/tmp"], "YYYY-MM-DD"),
        (["fetch", "--session", "2026-W12-5", "--artifacts", "/tmp"], "YYYY-MM-DD"),
        (["fetch", "--session", "2026-03-20", "--artifacts", ""], "s3://bucket/prefix"),
        (["fetch", "--session", "2026-03-20"], "--artifacts"),
        (["fetch", "--session", "2026-03-20", "--artifacts", "ftp://host/folder"], "s3://bucket/prefix"),
        (["fetch", "--session", "2026-03-20", "--artifacts", "file://relative"], "file:///relative"),
        (["fetch", "--session", "2026-03-20", "--artifacts", "/tmp", "--symbol", "../KS11"], "../KS11"),
        (["fetch", "--session", "2026-03-20", "--artifacts", "/tmp", "--unknown"], "--unknown"),
        (["fly"], "fly"),
        ([], "STEP"),
    ],
)
def test_an_invalid_command_line_exits_with_78_and_names_the_option(
    arguments: list[str], named: str, result: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_step(lambda: make_test_parser(succeed), arguments) == ExitCode.INVALID_CONFIGURATION
    assert named in capsys.readouterr().err
    assert Result.from_json(result.read_bytes()).manifest is None


def test_help_lists_options_their_variables_and_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_step(lambda: make_test_parser(succeed), ["fetch", "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    for part in (
        "--session",
        "SESSION",
        "--artifacts",
        "ARTIFACTS",
        "default: KS11",
        *(f"{code.value}  " for code in ExitCode),
    ):
        assert part in shown


def test_a_long_error_is_truncated_to_fit_the_termination_log() -> None:
    data = Result(error="코스피 " * 5000).to_json()
    assert len(data) <= MAX_BYTES
    assert Result.from_json(data).error


@pytest.mark.parametrize("length", [1000, 1500, 10_000])
def test_a_long_summary_is_truncated_to_fit_and_other_facts_are_kept(length: int) -> None:
    """A step that has committed its artifact must not fail because a person's reason in its summary is long."""
    facts: dict[str, Fact] = {"summary": "코" * length, "evaluation": "x" * 1500, "mae": 0.1}
    kept = Result.from_json(Result("m", facts).to_json()).facts
    assert {**kept, "summary": ""} == {**facts, "summary": ""}
    summary = str(kept["summary"])
    assert 200 <= len(summary) < length and summary.rstrip("…") in str(facts["summary"]) and summary.endswith("…")


def test_facts_that_do_not_fit_are_rejected() -> None:
    with pytest.raises(DataError, match="4096"):
        Result(manifest="m", facts={"long": "x" * 5000}).to_json()


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b'{"manifest": "m"}', b'{"manifest": 5, "facts": {}, "error": null}']
)
def test_an_invalid_result_is_rejected(data: bytes) -> None:
    with pytest.raises(DataError):
        Result.from_json(data)


def test_every_exit_code_has_a_retry_rule_and_any_other_is_an_error() -> None:
    assert set(RETRY_RULES) == {*ExitCode, *Termination}
    assert [code for code in ExitCode if RETRY_RULES[code].max_attempts > 1] == [
        ExitCode.SOURCE_UNAVAILABLE,
        ExitCode.TRANSIENT,
    ]
    assert (classify_exit_code(65), classify_exit_code(1), classify_exit_code(139)) == (
        ExitCode.INVALID_DATA,
        Termination.ERROR,
        Termination.ERROR,
    )


def test_a_path_names_its_session() -> None:
    session = date(2026, 3, 20)
    for path in (paths.prices("KS11", session), paths.model("KS11", session, "0"), paths.decision("KS11", session, "open")):
        assert paths.parse_session(f"{path}/manifest.json") == session
    with pytest.raises(DataError, match="names no session"):
        paths.parse_session("prices/symbol=KS11/session=2026-02-30/manifest.json")


def test_an_unwritable_result_exits_with_78_and_names_the_path(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STEP_RESULT", str(tmp_path))
    assert run_step(lambda: make_test_parser(succeed), ["fetch", "--session", "2026-03-20", "--artifacts", str(tmp_path)]) == 78
    assert f"cannot write the result to {tmp_path} (STEP_RESULT)" in capsys.readouterr().err


def test_an_interrupt_prints_a_sentence(result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(options: argparse.Namespace) -> Result:
        raise KeyboardInterrupt

    assert (
        run_step(lambda: make_test_parser(interrupted), ["fetch", "--session", "2026-03-20", "--artifacts", str(tmp_path)])
        == 130
    )
    assert capsys.readouterr().err == "collector fetch: interrupted\n"
