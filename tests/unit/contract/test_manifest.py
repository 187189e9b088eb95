from __future__ import annotations

import string
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from step_contract.commit import Content, commit, open_artifact
from step_contract.errors import DataError
from step_contract.facts import HeadlinesFacts, PricesFacts
from step_contract.manifest import File, Manifest, check_content, differences, digest
from step_contract.store import Store

names = st.text(string.ascii_lowercase + ".", min_size=1, max_size=12).filter(lambda name: name.strip("."))
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
integers = st.integers(-(2**53) + 1, 2**53 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
facts = st.dictionaries(texts.filter(bool), st.one_of(texts, integers, st.booleans(), st.none(), finite))
files = st.builds(File, names, st.binary(max_size=40).map(digest), st.integers(0, 2**40))
manifests = st.builds(
    Manifest,
    step=names,
    session=st.dates(),
    inputs=st.dictionaries(texts, texts),
    files=st.lists(files, max_size=3, unique_by=lambda file: file.name).map(tuple),
    rows=st.integers(0, 2**53 - 1),
    schema_version=st.integers(1, 9),
    facts=facts,
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


def test_headlines_facts_are_read_as_written() -> None:
    facts = HeadlinesFacts("2026-03-20", 7, 3, 1, "economy: HTTP 503")
    assert HeadlinesFacts.from_facts(facts.to_facts() | {"added": True}) == facts
    assert HeadlinesFacts("2026-03-20", 7, 3).to_facts() == {"session": "2026-03-20", "headlines": 7, "feeds": 3}


def test_a_whole_number_is_a_price_and_the_first_session_has_no_change() -> None:
    facts = {"session": "1995-05-02", "close": 900, "change": None}
    assert PricesFacts.parse(facts | {"rows": 1}).to_facts() == facts
    with pytest.raises(DataError, match="missing or of the wrong type: session, close"):
        PricesFacts.parse({"close": True, "change": 0.1})


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (HeadlinesFacts("2026-03-20", 7, 3, availability="complete"), "7 headlines"),
        (HeadlinesFacts("2026-03-20", 0, 3, availability="complete"), "no headlines published"),
        (HeadlinesFacts("2026-03-20", 0, 3, 3, availability="unavailable"), "headlines: not available for this session"),
        (HeadlinesFacts("2026-03-20", 0, 3, 1, availability="partial"), "0 headlines, partial: of 3 feeds 1 failed"),
        (HeadlinesFacts("2026-03-20", 7, 3, 1), "7 headlines, partial: of 3 feeds 1 failed"),
        (HeadlinesFacts("2026-03-20", 0, 3), "0 headlines"),
    ],
)
def test_no_headlines_some_and_unavailable_ones_are_distinguished(facts: HeadlinesFacts, text: str) -> None:
    assert HeadlinesFacts.parse(facts.to_facts()).describe() == text


@pytest.mark.parametrize("odd", [{"headlines": "7"}, {"feeds": None}, {"broken": True}, {"broken_feeds": 3}, {"session": 1}])
def test_headlines_facts_of_a_wrong_type_are_none(odd: dict[str, object]) -> None:
    assert HeadlinesFacts.from_facts(HeadlinesFacts("2026-03-20", 7, 3).to_facts() | odd) is None
    assert HeadlinesFacts.from_facts({"close": 1.5}) is None
