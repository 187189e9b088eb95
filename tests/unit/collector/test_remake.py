"""Artifacts that are made anew: `--remake`, and what another version of the program committed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from collector.fetch_headlines import commit_headlines
from collector.prices import compare_with_source, make_partitions
from step_contract import paths
from step_contract.commit import Committed, Content, commit, open_artifact
from step_contract.errors import SourceUnavailableError
from step_contract.manifest import Manifest
from step_contract.paths import parse_revision
from step_contract.schemas import PRICES
from step_contract.store import Store
from step_contract.tables import make_table, to_parquet

from .conftest import Run
from .test_feed_coverage import AB, HOUR, LATER, SESSION, Newsroom, feed, read_facts, read_titles
from .test_feed_coverage import newsroom as newsroom

OLD, NEW = b",34025853798776,", b",34025853798777,"
SESSIONS = ("--from", "2026-03-18", "--to", "2026-03-20")


def read_manifests(folder: Path) -> dict[str, Manifest]:
    """Return all manifests below a folder by their path."""
    found = sorted(folder.rglob("manifest.json"))
    return {str(path.relative_to(folder)): Manifest.from_json(path.read_bytes(), str(path)) for path in found}


def change_manifests(folder: Path, **fields: int) -> None:
    """Make the artifacts below a folder ones of another version of the program."""
    for path, manifest in read_manifests(folder).items():
        (folder / path).write_bytes(replace(manifest, **fields).to_json())  # type: ignore[arg-type]


def get_manifest(result: Mapping[str, object]) -> Manifest:
    return open_artifact(str(result["manifest"]))[0]


@pytest.mark.parametrize("step", ["decide", "fetch-prices"])
def test_a_remake_stands_beside_the_first_and_is_repeated_without_effect(step: str, collector: Run, tmp_path: Path) -> None:
    first = collector(step, "--session", "2026-03-20")[2]
    code, output, remade = collector(step, "--session", "2026-03-20", "--remake", "new 'logic'")
    assert (code, "(revision 2: new 'logic')" in output) == (0, True)
    assert parse_revision(str(remade["manifest"])) == 2 and get_manifest(remade).reason == "new 'logic'"
    again = collector(step, "--session", "2026-03-20", "--remake", "new 'logic'")
    assert (again[0], again[2]["manifest"], "already committed" in again[1]) == (0, remade["manifest"], True)
    without = collector(step, "--session", "2026-03-20", "--remake", "")[2]
    assert without["manifest"] == remade["manifest"]
    assert get_manifest(first).reason == ""
    assert len(read_manifests(tmp_path / "artifacts")) == 2


@pytest.mark.parametrize("step", ["decide", "fetch-prices"])
def test_what_another_version_committed_is_returned_with_the_command(step: str, collector: Run, tmp_path: Path) -> None:
    first = collector(step, "--session", "2026-03-20")[2]
    change_manifests(tmp_path / "artifacts", code_version=0)
    code, output, result = collector(step, "--session", "2026-03-20")
    assert (code, result["manifest"]) == (0, first["manifest"])
    advice = "made by code version 0 with schema version 1; this program has 1 and 1: to make it anew as a revision beside it, "
    advice += f"run collector {step} --session 2026-03-20 --symbol KS11 --remake REASON"
    assert advice in output and advice in str(result["facts"]["summary"])
    remade = collector(step, "--session", "2026-03-20", "--remake", "code version 1")
    assert "made by" not in remade[1] and parse_revision(str(remade[2]["manifest"])) == 2
    assert "made by" not in collector(step, "--session", "2026-03-20")[1]


def test_a_range_is_remade_once_and_a_killed_attempt_continues(collector: Run, tmp_path: Path) -> None:
    collector("fetch-prices", *SESSIONS)
    collector("fetch-prices", "--session", "2026-03-18", "--remake", "columns")
    code, output, result = collector("fetch-prices", *SESSIONS, "--remake", "columns")
    assert (code, "0 sessions committed, 3 already committed, 2 made anew" in output) == (0, True)
    assert str(result["manifest"]).endswith("session=2026-03-20/revision=2/manifest.json")
    assert collector("fetch-prices", *SESSIONS, "--remake", "columns")[2]["facts"]["remade"] == 0
    assert len(read_manifests(tmp_path / "artifacts")) == 6


def test_a_range_names_the_sessions_of_another_version_and_the_command(collector: Run, tmp_path: Path) -> None:
    collector("fetch-prices", "--from", "2026-03-18", "--to", "2026-03-19")
    change_manifests(tmp_path / "artifacts", code_version=0)
    code, output, result = collector("fetch-prices", *SESSIONS)
    assert (code, "1 sessions committed, 2 already committed; 2 of another version, such as 2026-03-18" in output) == (0, True)
    assert "run collector fetch-prices --from 2026-03-18 --to 2026-03-19 --symbol KS11 --remake REASON" in output
    assert "2 of another version" in str(result["facts"]["summary"])


def test_a_remake_does_not_accept_a_correction_unless_asked(collector: Run, mirror: Path, tmp_path: Path) -> None:
    collector("fetch-prices", "--session", "2026-03-20")
    (mirror / "2026.csv").write_bytes((mirror / "2026.csv").read_bytes().replace(OLD, NEW))
    code, output, _ = collector("fetch-prices", "--session", "2026-03-20", "--remake", "columns")
    assert (code, "--accept-corrections" in output, len(read_manifests(tmp_path / "artifacts"))) == (65, True, 1)
    both = ("fetch-prices", "--session", "2026-03-20", "--remake", "columns", "--accept-corrections")
    result = collector(*both)[2]
    assert (parse_revision(str(result["manifest"])), get_manifest(result).reason) == (2, "columns")
    assert collector(*both)[2]["manifest"] == result["manifest"]


def test_values_that_another_version_collected_are_no_correction(collector: Run, mirror: Path, tmp_path: Path) -> None:
    """Whether the source or the logic has changed is unknown then."""
    collector("fetch-prices", "--session", "2026-03-20")
    change_manifests(tmp_path / "artifacts", code_version=0)
    (mirror / "2026.csv").write_bytes((mirror / "2026.csv").read_bytes().replace(OLD, NEW))
    code, output, _ = collector("fetch-prices", "--session", "2026-03-20")
    assert (code, "Its values would be others: amount 34025853798776 is now 34025853798777" in output) == (0, True)
    assert collector("fetch-prices", *SESSIONS)[0] == 0
    result = collector("fetch-prices", "--session", "2026-03-20", "--remake", "code version 1")[2]
    assert parse_revision(str(result["manifest"])) == 2
    assert "already committed)" in collector("fetch-prices", "--session", "2026-03-20")[1]


@pytest.mark.parametrize("file", ["manifest.json", "prices.parquet"])
@pytest.mark.parametrize("arguments", [("--session", "2026-03-20"), SESSIONS])
def test_a_remake_repairs_a_damaged_session(file: str, arguments: tuple[str, ...], collector: Run, tmp_path: Path) -> None:
    collector("fetch-prices", *SESSIONS)
    [path] = (tmp_path / "artifacts" / "prices" / "symbol=KS11" / "session=2026-03-20").rglob(file)
    path.write_bytes(b"{")
    code, output, _ = collector("fetch-prices", "--session", "2026-03-20")
    assert (code, "run its step again with --remake REASON" in output) == (65, True)
    code, _, result = collector("fetch-prices", *arguments, "--remake", "damaged")
    assert (code, parse_revision(str(result["manifest"]))) == (0, 2)
    assert collector("fetch-prices", "--session", "2026-03-20")[2]["manifest"] == result["manifest"]


def test_an_invalid_reason_exits_78(collector: Run) -> None:
    code, output, _ = collector("decide", "--session", "2026-03-20", "--remake", "x" * 10_000)
    assert (code, "--remake: the reason has 10000 characters; at most 500 are allowed" in output) == (78, True)


def remake_headlines(newsroom: Newsroom, reason: str, **feeds: bytes) -> Committed:
    return commit_headlines(newsroom.store, newsroom.feeds(**feeds), SESSION, LATER, reason)


def test_remade_headlines_keep_what_the_feeds_have_dropped(newsroom: Newsroom) -> None:
    newsroom.commit(LATER, **AB)
    emptied = {"a": feed(LATER - HOUR), "b": feed(LATER - HOUR)}
    remade = remake_headlines(newsroom, "columns", **emptied)
    assert (remade.new, parse_revision(remade.uri), remade.manifest.reason) == (True, 2, "columns")
    assert read_titles(remade) == ["18 12:00", "18 13:00"] and read_facts(remade).availability == "complete"
    again = remake_headlines(newsroom, "columns", **emptied)
    assert (again.new, again.uri) == (False, remade.uri)


def test_remade_headlines_are_as_the_feeds_are_parsed_now(newsroom: Newsroom) -> None:
    newsroom.commit(LATER, a=AB["a"].replace(b"<title>18 12:00", b"<title>another 12:00"), b=AB["b"])
    assert read_titles(remake_headlines(newsroom, "titles", **AB)) == ["18 12:00", "18 13:00"]


def test_headlines_are_not_remade_from_feeds_that_cannot_be_read(newsroom: Newsroom) -> None:
    first = newsroom.commit(LATER, **AB)
    with pytest.raises(SourceUnavailableError, match="none of the 2 feeds can be read"):
        remake_headlines(newsroom, "columns", a=b"<html/>", b=b"<html/>")
    assert newsroom.commit(LATER, **AB).uri == first.uri


def test_headlines_are_remade_from_the_latest_revision_that_is_not_damaged(newsroom: Newsroom) -> None:
    newsroom.commit(LATER, **AB)
    damaged = remake_headlines(newsroom, "columns", **AB)
    newsroom.store.replace(damaged.uri.removeprefix(f"{newsroom.store.root}/"), b"{")
    remade = remake_headlines(newsroom, "columns", a=feed(LATER), b=feed(LATER))
    assert (parse_revision(remade.uri), read_titles(remade)) == (3, ["18 12:00", "18 13:00"])


def test_an_extended_revision_states_its_reason(newsroom: Newsroom) -> None:
    newsroom.commit(LATER, a=AB["a"], b=b"<html/>")
    assert newsroom.commit(LATER, **AB).manifest.reason == "the feeds held more of the day"


def test_a_column_that_the_committed_file_lacks_is_no_correction(tmp_path: Path) -> None:
    """Also if nobody raised the schema version when it was added."""
    store = Store(f"file://{tmp_path}")
    values = (SESSION, 1.0, 2.0, 0.5, 1.5, None, 7, 8, None)
    bars = make_table(PRICES, {name: [value] for name, value in zip(PRICES.names, values, strict=True)})
    [partition] = make_partitions("KS11", bars)
    older = to_parquet(bars.drop(columns=["volume"]), PRICES.select([name for name in PRICES.names if name != "volume"]))
    inputs = {"symbol": "KS11", "bar": "of the columns of that time"}
    directory, content = paths.prices("KS11", SESSION), Content({PRICES.file: older}, rows=1, schema_version=1, facts={})
    commit(store, directory, step="fetch-prices", session=SESSION, inputs=inputs, content=content)
    revisions = paths.session_revisions(store.list(paths.prices_root("KS11")))
    [comparison] = compare_with_source(store, [partition], revisions)
    assert (comparison.differences, comparison.is_correction) == ("", False)
