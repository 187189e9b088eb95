"""Names of objects are literal, reads are bounded, and neither depends on the kind of store."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from step_contract.errors import ConfigurationError, DataError
from step_contract.store import CHUNK_BYTES, Store

ODD_NAMES = ["a*", "a?", "[ab]", "a{b}", "a b", "a#b", "a%20b", "a+b", "a&b", "a'b", 'a"b', "é", "a?x=1", "~a", "-a", "a:b"]


def test_special_characters_in_names_are_literal(artifacts: str) -> None:
    store = Store(artifacts)
    for other in ("ab", "b", "a", "aX", "axb"):
        store.write(f"d/{other}", b"another object")
    for name in ODD_NAMES:
        assert store.read_many([f"d/{name}", "d/none"]) == {f"d/{name}": None, "d/none": None}
        store.write(f"d/{name}", name.encode())
    assert store.read_many([f"d/{name}" for name in ODD_NAMES]) == {f"d/{name}": name.encode() for name in ODD_NAMES}
    assert [store.size(f"d/{name}") for name in ODD_NAMES] == [len(name.encode()) for name in ODD_NAMES]
    assert {name.removeprefix("d/") for name in store.list("d")} == {*ODD_NAMES, "ab", "b", "a", "aX", "axb"}


@pytest.mark.parametrize("name", ODD_NAMES)
def test_removing_a_folder_removes_no_other(artifacts: str, name: str) -> None:
    store = Store(artifacts)
    for folder in (name, "a", "ab", "b", "aX", "axb"):
        store.write(f"{folder}/object", b"")
    store.write(f"{name}/*", b"")
    store.remove_folder(name)
    assert store.list("") == sorted(f"{folder}/object" for folder in ("a", "ab", "b", "aX", "axb"))


@pytest.mark.parametrize(
    "name", ["", "a//b", "/a", "a/", "../a", "a/../b", "./a", "a/.", "a\x00b", "a\nb", "\ud800", "a?versionId=b"]
)
def test_a_name_that_the_store_cannot_hold_is_rejected(artifacts: str, name: str) -> None:
    store = Store(artifacts)
    for call in (store.read, store.size, store.remove_folder, lambda name: store.read_many([name, "b"])):
        with pytest.raises(DataError, match="invalid name"):
            call(name)
    for write in (store.write, store.create, store.replace):
        with pytest.raises(DataError, match="invalid name"):
            write(name, b"")


@pytest.mark.parametrize(
    "root", ["file:///a/../b", "s3://bucket/../b", "s3://bucket/a\x00", "s3://bucket/a?versionId=b", "s3://b/\ud800"]
)
def test_a_root_that_is_not_literal_is_rejected(root: str) -> None:
    with pytest.raises(ConfigurationError, match="invalid artifacts URL"):
        Store(root)


def test_an_object_above_the_limit_is_not_read(artifacts: str) -> None:
    store = Store(artifacts)
    store.write("a", b"12345")
    store.write("b", b"1234")
    assert store.read("a", limit=5) == b"12345"
    with pytest.raises(DataError, match="a has more than 4 bytes"):
        store.read("a", limit=4)
    with pytest.raises(DataError, match="a has more than 4 bytes"):
        store.read_many(["b", "a"], limit=4)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_an_object_is_read_back_in_chunks(artifacts: str, size: int) -> None:
    store, data = Store(artifacts), os.urandom(size)
    store.write("a", data)
    assert (store.size("a"), store.read("a"), store.read_many(["a", "b"])) == (size, data, {"a": data, "b": None})
    chunks = list(store.read_chunks("a", size))
    assert b"".join(chunks) == data and all(len(chunk) <= CHUNK_BYTES for chunk in chunks)


def test_reading_beyond_the_end_stops_there(artifacts: str) -> None:
    store = Store(artifacts)
    store.write("a", b"12")
    assert b"".join(store.read_chunks("a", 3 * CHUNK_BYTES)) == b"12"
    assert (store.size("none"), list(store.read_chunks("none", 5))) == (None, [])


def test_what_is_no_regular_file_has_no_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    store = Store(str(tmp_path))
    assert (store.size("fifo"), store.size("folder")) == (None, None)
