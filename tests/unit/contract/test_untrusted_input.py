"""Whatever a step reports or commits, readers accept it or raise DataError."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from step_contract.commit import Content, commit, open_artifact, verify_artifact
from step_contract.errors import DataError, StepError
from step_contract.manifest import MAX_BYTES, MAX_FILES, Manifest, digest
from step_contract.result import Result
from step_contract.store import Store

from tests.conftest import s3_variables

SHA256 = "ab" * 32
RESULT: dict[str, Any] = {"manifest": "s3://bucket/plots/manifest.json", "facts": {}, "error": None}
MANIFEST: dict[str, Any] = {
    "manifest": 1,
    "step": "plot",
    "session": "2026-03-20",
    "inputs": {"bar": "a"},
    "files": [{"path": "attempt=1/forecast.png", "sha256": SHA256, "size": 12}],
    "rows": 1,
    "schema_version": 1,
    "facts": {"close": 5781.2},
    "created": "2026-03-20T10:00:00+00:00",
    "image": None,
    "commit": None,
}

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
INVALID_JSON = [
    b"",
    b"{",
    b"null",
    b"[" * 4000,
    b'{"facts":' * 400,
    b'\xef\xbb\xbf{"manifest": null, "facts": {}, "error": null}',
    b'{"manifest": null, "facts": {}, "error": "\xff"}',
    '{"manifest": null, "facts": {}, "error": null}'.encode("utf-16"),
    b'{"manifest": null, "facts": {}, "error": null, "error": "x"}',
    b'{"manifest": null, "facts": {}, "error": "\\ud800"}',
    b'{"manifest": null, "facts": {}, "error": "\\u0000"}',
    b"1" * 4090,
]
INVALID_FACTS = [
    "null",
    "[]",
    '"text"',
    "5",
    '{"a": {}}',
    '{"a": [1]}',
    '{"a": NaN}',
    '{"a": -Infinity}',
    '{"a": 1e999}',
    '{"a": 9007199254740993}',
    '{"a": 1, "a": 2}',
    '{"": 1}',
    '{"a": "\\ud800"}',
    '{"a": "\\u0000"}',
    json.dumps({"n" * 101: 1}),
    json.dumps({"a": "x" * 2049}),
    json.dumps({f"fact {number}": 1 for number in range(65)}),
]


@pytest.fixture(scope="module")
def s3_settings(s3_endpoint: str) -> Iterator[None]:
    """Set the AWS variables for this module: hypothesis does not renew a fixture between two examples."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_variables(s3_endpoint).items():
            patch.setenv(name, value)
        yield


def sign(content: dict[str, Any]) -> bytes:
    """Return a manifest of `content` whose digest is right."""
    data = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")
    return json.dumps(content | {"sha256": digest(data)}).encode()


@given(st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_result_and_a_manifest_or_a_data_error(data: bytes) -> None:
    for parse in (Result.from_json, lambda data: Manifest.from_json(data, "here")):
        with pytest.raises(DataError):
            parse(data)


@given(st.sampled_from(sorted(RESULT)), values)
@example("facts", None)
def test_a_result_with_any_value_in_a_field_is_valid_or_a_data_error(field: str, value: object) -> None:
    try:
        result = Result.from_json(json.dumps(RESULT | {field: value}))
    except DataError as error:
        assert len(str(error)) < 1000
    else:
        assert all(value is None or type(value) in (str, int, float, bool) for value in result.facts.values())


@given(st.sampled_from(sorted(MANIFEST)), values)
def test_a_manifest_with_any_value_in_a_field_is_valid_or_a_data_error(field: str, value: object) -> None:
    try:
        manifest = Manifest.from_json(sign(MANIFEST | {field: value}), "here")
    except DataError as error:
        assert len(str(error)) < 1000
    else:
        assert Manifest.from_json(manifest.to_json(), "here") == manifest


@given(st.sampled_from(["path", "sha256", "size"]), values)
def test_a_manifest_with_any_value_in_a_file_is_valid_or_a_data_error(field: str, value: object) -> None:
    content = MANIFEST | {"files": [MANIFEST["files"][0] | {field: value}]}
    try:
        [file] = Manifest.from_json(sign(content), "here").files
    except DataError as error:
        assert len(str(error)) < 1000
    else:
        assert (type(file.path), type(file.sha256), type(file.size)) == (str, str, int)


@pytest.mark.parametrize("data", INVALID_JSON)
def test_invalid_json_is_a_data_error(data: bytes) -> None:
    for parse in (Result.from_json, lambda data: Manifest.from_json(data, "here")):
        with pytest.raises(DataError) as error:
            parse(data)
        assert len(str(error.value)) < 1000


@pytest.mark.parametrize("facts", INVALID_FACTS, ids=lambda facts: facts[:20])
def test_facts_are_few_flat_and_short(facts: str) -> None:
    with pytest.raises(DataError):
        Result.from_json(f'{{"manifest": null, "facts": {facts}, "error": null}}')
    with pytest.raises(DataError):
        Manifest.from_json(sign(MANIFEST | {"facts": {}}).replace(b'"facts": {}', f'"facts": {facts}'.encode()), "here")


def test_a_result_of_more_than_4096_bytes_is_a_data_error() -> None:
    with pytest.raises(DataError, match="4096"):
        Result.from_json(json.dumps(RESULT) + " " * 4096)


def test_a_manifest_that_is_too_large_is_rejected_before_it_is_read(artifacts: str) -> None:
    store = Store(artifacts)
    store.write("plots/manifest.json", b"[" * (MAX_BYTES + 1))
    with pytest.raises(DataError, match=f"more than {MAX_BYTES} bytes"):
        verify_artifact(store.uri("plots/manifest.json"))


def test_a_manifest_with_too_many_files_is_rejected() -> None:
    files = [{"path": f"a/{number}", "sha256": SHA256, "size": 1} for number in range(MAX_FILES + 1)]
    with pytest.raises(DataError, match=f"at most {MAX_FILES}"):
        Manifest.from_json(sign(MANIFEST | {"files": files}), "here")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../secret",
        "a/../../x",
        "a//b",
        "./a",
        "a/",
        "a\\b",
        "a*",
        "a?b",
        "a[b]",
        "a b",
        "a#b",
        "a%2e",
        "a\nb",
        *("a\x00b", "a:b", "a<b", 'a"b', "a'b", "é", "a" * 300, "manifest.json", "a/manifest.json", "//evil", "~/x"),
    ],
)
def test_a_file_name_that_a_path_or_a_page_could_misread_is_rejected(path: str, tmp_path: Path) -> None:
    content = MANIFEST | {"files": [{"path": path, "sha256": SHA256, "size": 1}]}
    with pytest.raises(DataError, match="here"):
        Manifest.from_json(sign(content), "here")
    store, session = Store(str(tmp_path)), date(2026, 3, 20)
    if "/" not in path:
        with pytest.raises(DataError, match="cannot be committed"):
            commit(store, "plots", step="plot", session=session, inputs={}, content=Content({path: b""}, 0, 1, {}))
        assert store.list("") == []


@pytest.mark.parametrize("sha256", ["<form action=//evil>", SHA256.upper(), SHA256[:-1], "g" * 64, 5, None, [], SHA256 + "\n"])
def test_only_64_lower_case_hex_digits_are_a_digest(sha256: object) -> None:
    with pytest.raises(DataError, match="here"):
        Manifest.from_json(sign(MANIFEST | {"files": [{"path": "a/b", "sha256": sha256, "size": 1}]}), "here")


def test_two_files_of_one_name_are_rejected() -> None:
    files = [{"path": f"attempt={number}/a", "sha256": SHA256, "size": 1} for number in (1, 2)]
    with pytest.raises(DataError, match="here"):
        Manifest.from_json(sign(MANIFEST | {"files": files}), "here")


@given(st.text(max_size=40))
@example("file:///a\x00b/x")
@example("file:///a\ud800/x")
@example("file:///etc/passwd")
@example("file:///tmp/../etc")
@example("s3://a b/x")
@example("s3:///x")
@example("gopher://x/y")
@example("file:///" + "a" * 5000)
@example("file:///" + "a/" * 5000)
def test_an_artifacts_uri_is_never_followed_anywhere_else(s3_settings: None, text: str) -> None:
    for uri in (text, f"{text}/manifest.json", f"file:///nowhere/{text}/manifest.json", f"s3://no-bucket/{text}/manifest.json"):
        for read in (verify_artifact, open_artifact):
            with pytest.raises(StepError) as error:
                read(uri)
            assert len(str(error.value)) < 2000


def test_an_uri_that_a_url_would_normalise_is_rejected(artifacts: str) -> None:
    store = Store(artifacts)
    manifest = Manifest("plot", date(2026, 3, 20), {}, (), 1, 1, {}, datetime.now(UTC))
    store.write("plots/manifest.json", manifest.to_json())
    for directory in ("x/../plots", "./plots", "plots/.", "x//plots", "plots?versionId=1"):
        with pytest.raises(DataError, match="not the URI"):
            verify_artifact(f"{artifacts}/{directory}/manifest.json")


@given(st.dictionaries(st.text(max_size=5), values, max_size=3), st.none() | st.text() | st.just("a\x00\ud800b"))
def test_a_step_writes_a_result_that_its_reader_accepts_or_fails(facts: dict[str, Any], error: str | None) -> None:
    try:
        data = Result("s3://bucket/plots/manifest.json", facts, error).to_json()
    except DataError:
        return
    result = Result.from_json(data)
    assert result.facts == facts and bool(result.error) == bool(error)


def test_an_error_that_is_no_valid_text_still_reaches_the_reader() -> None:
    assert Result.from_json(Result(error="cannot read a\udcff\x00b").to_json()).error == "cannot read a\\udcff b"


@pytest.mark.parametrize("unit", [b'"', b'"\\', b"\\", b"[", b"]", b'"[', b'{"":', b"1", b" ", b"[]", b'"a"'])
def test_parsing_takes_linear_time(unit: bytes) -> None:
    data = (unit * MAX_BYTES)[:MAX_BYTES]
    started = time.process_time()
    with pytest.raises(DataError):
        Manifest.from_json(data, "here")
    assert time.process_time() - started < 5
