"""Revisions: what makes one, which one a step returns, and which one a reader uses."""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from threading import Barrier

import pytest
from step_contract import paths
from step_contract.cli import Parser, add_remake_option
from step_contract.commit import Committed, Content
from step_contract.errors import ConfigurationError, DataError
from step_contract.manifest import Manifest
from step_contract.revisions import (
    Artifact,
    Logic,
    list_revisions,
    load_manifest,
    parse_as_of,
    select_revisions,
)
from step_contract.store import Store

SESSION = date(2026, 3, 20)
DIRECTORY = paths.plot("KS11", SESSION, "0123")
LOGIC = Logic("trainer", "plot", code_version=2, schema_version=3)
CONTENT = Content({"forecast.png": b"PNG"}, rows=0, schema_version=3, facts={})
INPUTS = {"symbol": "KS11", "forecast": "a"}


def make(
    store: Store,
    remake: str = "",
    inputs: dict[str, str] = INPUTS,
    changed: str | None = None,
    logic: Logic = LOGIC,
    content: Content = CONTENT,
) -> Committed:
    """Do what a step does: return what answers it, or commit."""
    artifact = Artifact(store, DIRECTORY, logic, session=SESSION, inputs=inputs, remake=remake, changed=changed)
    return artifact.find() or artifact.commit(content)


def damage(store: Store, committed: Committed) -> None:
    store.replace(committed.uri.removeprefix(f"{store.root}/"), b"{")


def numbers(store: Store) -> list[int]:
    return list(list_revisions(store, DIRECTORY))


def test_a_remake_is_a_revision_beside_the_first_with_its_reason(artifacts: str) -> None:
    store = Store(artifacts)
    first, again = make(store), make(store)
    remade = make(store, "another font")
    assert (first.uri, again.new, again.uri) == (f"{artifacts}/{DIRECTORY}/manifest.json", False, first.uri)
    assert remade.new and remade.uri == f"{artifacts}/{DIRECTORY}/revision=2/manifest.json"
    assert (first.manifest.reason, remade.manifest.reason, remade.manifest.code_version) == ("", "another font", 2)
    assert load_manifest(store, f"{DIRECTORY}/manifest.json") == first.manifest
    assert make(store).uri == remade.uri


def test_repeating_a_remake_makes_no_other_revision(artifacts: str) -> None:
    store = Store(artifacts)
    make(store)
    remade = make(store, "another font")
    make(store, "another color")
    again = make(store, "another font")
    assert (again.new, again.uri, numbers(store)) == (False, remade.uri, [1, 2, 3])
    assert again.note == "made for this reason before revision 3, which is the one that readers use"
    assert make(store, "another color").note == ""


@pytest.mark.parametrize("other", [replace(LOGIC, code_version=4), replace(LOGIC, schema_version=4)])
def test_another_version_of_the_step_remakes_for_the_same_reason(other: Logic, artifacts: str) -> None:
    store = Store(artifacts)
    make(store, "a reason")
    content = replace(CONTENT, schema_version=other.schema_version)
    assert [make(store, "a reason", logic=other, content=content).new for _ in range(2)] == [True, False]
    assert numbers(store) == [1, 2]


def test_other_inputs_are_an_error_or_a_revision_that_names_the_change(artifacts: str) -> None:
    store = Store(artifacts)
    make(store)
    other = {"symbol": "KS11", "forecast": "b" * 64}
    with pytest.raises(
        DataError, match=r"forecast: committed a, now bbb.*trainer plot --session 2026-03-20 --symbol KS11 --remake"
    ):
        make(store, inputs=other)
    committed = make(store, inputs=other, changed="the model changed: {differences}")
    assert committed.new and committed.manifest.reason == f"the model changed: forecast: committed a, now {'b' * 12}"
    assert not make(store, inputs=other, changed="the model changed: {differences}").new
    assert numbers(store) == [1, 2]


def test_what_another_version_made_is_returned_with_the_command_that_makes_it_anew(artifacts: str) -> None:
    store = Store(artifacts)
    make(store, logic=replace(LOGIC, code_version=1, schema_version=2), content=replace(CONTENT, schema_version=2))
    returned = make(store)
    assert not returned.new
    assert returned.note == (
        "made by code version 1 with schema version 2; this program has 2 and 3: to make it anew as a revision beside it, run "
        "trainer plot --session 2026-03-20 --symbol KS11 --remake REASON"
    )
    assert make(store, logic=replace(LOGIC, code_version=1, schema_version=2)).note == ""


def test_what_a_newer_version_made_is_returned_with_the_advice_to_upgrade(artifacts: str) -> None:
    store = Store(artifacts)
    make(store, logic=replace(LOGIC, code_version=9))
    assert make(store).note.endswith("upgrade the program")


def test_a_damaged_revision_is_reported_and_can_be_remade(artifacts: str) -> None:
    store = Store(artifacts)
    make(store)
    damage(store, make(store, "another font"))
    for read in (lambda: make(store), lambda: select_revisions(store, {1: list_revisions(store, DIRECTORY)})):
        with pytest.raises(DataError, match=r"revision=2/manifest.json .*run its step again with --remake REASON"):
            read()
    repaired = make(store, "another font")
    assert repaired.uri.endswith("/revision=3/manifest.json")
    assert make(store).uri == repaired.uri
    assert select_revisions(store, {1: list_revisions(store, DIRECTORY)})[1][1] == repaired.manifest


def run_at_once(artifacts: str, reasons: list[str]) -> list[Committed]:
    start = Barrier(len(reasons))

    def write(number: int) -> Committed:
        artifact = Artifact(Store(artifacts), DIRECTORY, LOGIC, session=SESSION, inputs=INPUTS, remake=reasons[number])
        assert artifact.find() is None
        start.wait()
        return artifact.commit(replace(CONTENT, files={"forecast.png": f"writer {number}".encode()}))

    with ThreadPoolExecutor(len(reasons)) as pool:
        return list(pool.map(write, range(len(reasons))))


def test_of_concurrent_writers_of_one_revision_one_wins_and_the_others_return_it(artifacts: str) -> None:
    store = Store(artifacts)
    make(store)
    outcomes = run_at_once(artifacts, ["a reason"] * 6)
    assert sum(outcome.new for outcome in outcomes) == 1
    assert {outcome.uri for outcome in outcomes} == {f"{artifacts}/{DIRECTORY}/revision=2/manifest.json"}
    assert len(store.list("")) == 4, "the losers' files are removed"


def test_concurrent_writers_with_other_reasons_take_the_next_numbers(artifacts: str) -> None:
    store = Store(artifacts)
    make(store)
    outcomes = run_at_once(artifacts, [f"reason {number}" for number in range(5)])
    assert all(outcome.new for outcome in outcomes)
    assert numbers(store) == [1, 2, 3, 4, 5, 6]
    assert [outcome.manifest.reason for outcome in outcomes] == [f"reason {number}" for number in range(5)]


def test_readers_can_be_pinned_to_what_was_committed_by_a_time(artifacts: str) -> None:
    store = Store(artifacts)
    committed = [make(store), make(store, "another font"), make(store, "another color")]
    revisions = {"plot": list_revisions(store, DIRECTORY)}
    for artifact in committed:
        assert select_revisions(store, revisions, artifact.manifest.created)["plot"][1] == artifact.manifest
    assert select_revisions(store, revisions)["plot"][1] == committed[-1].manifest
    assert select_revisions(store, revisions, committed[0].manifest.created - timedelta(seconds=1)) == {}


def test_revisions_are_ordered_by_their_numbers() -> None:
    names = [f"{paths.revision(DIRECTORY, number)}/{paths.MANIFEST}" for number in (10, 2, 1, 9)]
    assert list(paths.group_revisions([*names, f"{DIRECTORY}/attempt=1/x"])[DIRECTORY]) == [1, 2, 9, 10]


def test_a_copy_inside_a_sessions_directory_is_an_error_that_names_it() -> None:
    directory = paths.prices("KS11", SESSION)
    names = [f"{directory}/manifest.json", f"{directory}/revision=2/manifest.json"]
    assert list(paths.session_revisions(names)) == [SESSION]
    for copy in (f"{directory}/copy", f"{directory}/revision=2/copy", f"{directory}/revision=02"):
        with pytest.raises(DataError, match=f"^{copy} is no session's directory: move it elsewhere"):
            paths.session_revisions([*names, f"{copy}/manifest.json"])


def test_a_manifest_of_before_revisions_had_reasons_is_serialized_as_it_was(artifacts: str) -> None:
    manifest = make(Store(artifacts), logic=replace(LOGIC, code_version=1)).manifest
    data = manifest.to_json()
    assert b"code_version" not in data and b"reason" not in data
    assert Manifest.from_json(data, "here") == manifest


def parse(*words: str) -> str | None:
    parser = Parser(prog="collector")
    steps = parser.add_subparsers(parser_class=Parser)
    step = steps.add_parser("decide")
    add_remake_option(step)
    step.add_argument("--session")
    options: argparse.Namespace = parser.parse_args(["decide", *words, "--session", "2026-03-20"])
    assert options.session == "2026-03-20"
    reason: str | None = options.remake
    return reason


@pytest.mark.parametrize(
    "reason",
    [
        "-dash",
        "--symbol",
        "--remake",
        "a 'b' \"c\" `d` $HOME",
        "{{ x }} {y} %s",
        "로직 변경: 반올림",
        "a=b",
        "x" * 500,
    ],
)
def test_any_reason_of_a_person_is_accepted_as_it_is(reason: str) -> None:
    assert parse("--remake", reason) == parse(f"--remake={reason}") == reason


@pytest.mark.parametrize("reason", ["", " ", "\n"])
def test_an_empty_reason_is_none(reason: str) -> None:
    assert not parse("--remake", reason)
    assert not parse()


def test_a_reason_is_one_line() -> None:
    assert parse("--remake", " columns\n changed\t") == "columns changed"


@pytest.mark.parametrize(
    ("reason", "problem"),
    [("x" * 10_000, "has 10000 characters; at most 500"), ("a\x1bb", "cannot be printed"), ("\udcff", "cannot be printed")],
)
def test_an_invalid_reason_is_rejected(reason: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        parse("--remake", reason)


def test_a_time_needs_its_zone_and_is_in_the_past() -> None:
    assert parse_as_of("2026-01-15T18:00:00+09:00") == datetime(2026, 1, 15, 9, tzinfo=UTC)
    assert parse_as_of("2026-01-15T09:00:00Z") == datetime(2026, 1, 15, 9, tzinfo=UTC)
    assert parse_as_of("") is None
    for text in ("2026-01-15", "2026-01-15T18:00:00", "yesterday", "9998-01-01T00:00:00Z", "0001-01-01T00:00:00+23:00"):
        with pytest.raises(argparse.ArgumentTypeError, match="invalid time"):
            parse_as_of(text)
