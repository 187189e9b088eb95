from __future__ import annotations

import string
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from step_contract.commit import Content, commit, open_artifact
from step_contract.errors import DataError
from step_contract.facts import HeadlinesFacts
from step_contract.manifest import File, Manifest, check_content, differences, digest
from step_contract.store import Store

names = st.text(string.ascii_lowercase + ".", min_size=1, max_size=12).filter(lambda name: name.strip("."))
texts = st.text(max_size=20)
facts = st.dictionaries(texts, st.one_of(texts, st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False, width=32)))
files = st.builds(File, names, st.binary(max_size=40).map(digest), st.integers(0, 2**40))
manifests = st.builds(
    Manifest,
    step=names,
    session=st.dates(),
    inputs=st.dictionaries(texts, texts),
    files=st.lists(files, max_size=3).map(tuple),
    rows=st.integers(0),
    schema_version=st.integers(1, 9),
    facts=facts.filter(lambda f: all(not isinstance(v, float) or abs(v) != float("inf") for v in f.values())),
    created=st.datetimes(min_value=datetime(2000, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 hypothesis wants it so
    image=st.none() | texts,
    commit=st.none() | texts,
)


@given(manifests)
def test_a_manifest_round_trips(manifest: Manifest) -> None:
    assert Manifest.from_json(manifest.to_json(), "here") == manifest


@given(manifests, st.data())
def test_an_altered_or_truncated_manifest_is_rejected_or_equal(manifest: Manifest, data: st.DataObject) -> None:
    whole = manifest.to_json()
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        damaged = whole[:at]
    else:
        damaged = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    try:
        assert Manifest.from_json(damaged, "here") == manifest
    except DataError as error:
        assert "here" in str(error)


@given(st.binary(max_size=200), st.data())
def test_altered_or_truncated_content_is_rejected_with_both_digests(content: bytes, data: st.DataObject) -> None:
    file = File("attempt=1/prices.parquet", digest(content), len(content))
    assert check_content("here", file, content) == content
    other = data.draw(st.binary(max_size=200).filter(lambda other: other != content))
    with pytest.raises(DataError) as error:
        check_content("here", file, other)
    assert digest(content) in str(error.value) and digest(other) in str(error.value)


@given(st.dictionaries(names, st.binary(max_size=100), min_size=1, max_size=3), st.dictionaries(texts, texts))
def test_any_committed_content_is_read_back(contents: dict[str, bytes], inputs: dict[str, str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        content = Content(contents, rows=0, schema_version=1, facts={})
        put = commit(
            Store(folder),
            "a/session=2026-03-20",
            step="s",
            session=datetime(2026, 3, 20, tzinfo=UTC).date(),
            inputs=inputs,
            content=content,
        )
        manifest, read = open_artifact(put.uri)
        assert read == contents and manifest == put.manifest
        assert len([path for path in Path(folder).rglob("*") if path.is_file()]) == len(contents) + 1


@given(st.dictionaries(names, texts), st.dictionaries(names, texts))
def test_differences_are_described_exactly_if_inputs_differ(one: dict[str, str], other: dict[str, str]) -> None:
    assert bool(differences(one, other)) == (one != other)


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "attempt=1/../../../x"])
def test_a_manifest_with_files_outside_the_artifact_is_rejected(path: str) -> None:
    outside = Manifest("fetch", date(2026, 3, 20), {}, (File(path, "0" * 64, 1),), 1, 1, {}, datetime.now(UTC))
    with pytest.raises(DataError, match="points outside the artifact"):
        Manifest.from_json(outside.to_json(), "here")


def test_a_deeply_nested_manifest_is_rejected() -> None:
    with pytest.raises(DataError, match="truncated or not a manifest"):
        Manifest.from_json(b"[" * 100_000, "here")


def test_headlines_facts_are_read_as_written() -> None:
    facts = HeadlinesFacts("2026-03-20", 7, 3, 1, "economy: HTTP 503")
    assert HeadlinesFacts.from_facts(facts.to_facts() | {"added": True}) == facts
    assert HeadlinesFacts("2026-03-20", 7, 3).to_facts() == {"session": "2026-03-20", "headlines": 7, "feeds": 3}


@pytest.mark.parametrize("odd", [{"headlines": "7"}, {"feeds": None}, {"broken": True}, {"broken_feeds": 3}, {"session": 1}])
def test_headlines_facts_of_a_wrong_type_are_none(odd: dict[str, object]) -> None:
    assert HeadlinesFacts.from_facts(HeadlinesFacts("2026-03-20", 7, 3).to_facts() | odd) is None
    assert HeadlinesFacts.from_facts({"close": 1.5}) is None
