"""The manifest: what an artifact consists of and what it was made from (its lineage). Without a manifest there is no artifact.

The class `Manifest` is the schema of manifest.json. It holds a checksum (sha256) of each file and of itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import sha256
from types import NoneType
from typing import Any

from step_contract.errors import DataError
from step_contract.lineage.sources import Source, SourceList, parse_sources, sources_to_json
from step_contract.paths import MANIFEST
from step_contract.schemas import parse_iso_date
from step_contract.strict_json import parse_object, shorten, shorten_message

FORMAT = 1
MAX_BYTES = 2**20
MAX_FILES = 256
MAX_NAME_LENGTH, MAX_PATH_LENGTH = 128, 512  # a file system allows 255, S3 1,024 with the artifact's directory
MAX_REASON_LENGTH = 1000
MAX_FACTS, MAX_FACT_NAME_LENGTH, MAX_FACT_LENGTH = 64, 100, 2048

_NAME = re.compile(rf"[A-Za-z0-9._=+-]{{1,{MAX_NAME_LENGTH}}}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REMOVE_ARTIFACT = (
    "restore it, or run its step again with --remake REASON, which commits a revision beside it; or remove it with the files "
    "beside it and run its step again"
)

Fact = str | int | float | bool | None


def digest(data: bytes) -> str:
    """Return the checksum of `data`: its sha256 in hexadecimal."""
    return sha256(data).hexdigest()


def canonical(content: object) -> bytes:
    """Serialize `content` as JSON: equal content gives equal bytes."""
    return json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


@dataclass(frozen=True)
class File:
    """One object of an artifact: its path relative to the manifest, its sha256 in hexadecimal and its size in bytes."""

    path: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """The file's final name, without the attempt that wrote it."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Manifest:
    """The description of one artifact.

    A new field belongs into `to_json`, `_parse` and `commit.commit` too, and into the page of `airflow_steps.artifact_viewer`.

    Attributes:
        inputs: everything that the content depends on; runs with equal inputs may share the artifact.
        facts: small values for whoever reads the result.
        rows: the number of records in tabular files, 0 if there are none.
        schema_version: the version of the files' schema.
        created: UTC.
        image: the image that made it, if known; `commit` likewise.
        code_version: the version of the step's logic (`revisions.Logic`). Manifests of before it was recorded have none: 1.
        reason: why there is this revision, empty for the first of an artifact unless a person gave one.
        sources: what it was made from. Manifests of before it was recorded have none.
    """

    step: str
    session: date
    inputs: Mapping[str, str]
    files: tuple[File, ...]
    rows: int
    schema_version: int
    facts: Mapping[str, Fact]
    created: datetime
    image: str | None = None
    commit: str | None = None
    code_version: int = 1
    reason: str = ""
    sources: tuple[Source | SourceList, ...] = ()

    def file(self, name: str) -> File:
        """Return the file with that final name. Raises DataError if the artifact has none."""
        for file in self.files:
            if file.name == name:
                return file
        names = shorten([file.name for file in self.files])
        raise DataError(f"the artifact of {self.step} for {self.session} has no {name}, only {names}")

    def to_json(self) -> bytes:
        """Serialize the manifest: readable JSON that carries the sha256 of its own canonical content.

        Raises DataError if it is invalid, so that nothing is committed that no reader accepts.
        """
        content: dict[str, Any] = {
            "manifest": FORMAT,
            "step": self.step,
            "session": self.session.isoformat(),
            "inputs": dict(self.inputs),
            "files": [{"path": f.path, "sha256": f.sha256, "size": f.size} for f in self.files],
            "rows": self.rows,
            "schema_version": self.schema_version,
            "facts": dict(self.facts),
            "created": self.created.astimezone(UTC).isoformat(),
            "image": self.image,
            "commit": self.commit,
        }
        # Only if they differ: a manifest of before these fields existed is the same bytes when it is serialized again.
        content |= {"code_version": self.code_version} if self.code_version != 1 else {}
        content |= {"reason": self.reason} if self.reason else {}
        content |= {"sources": sources_to_json(self.sources)} if self.sources else {}
        try:
            content["sha256"] = digest(canonical(content))
            data = (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
            _parse(parse_object(data, MAX_BYTES))
        except ValueError as error:
            reason = shorten_message(error)
            raise DataError(
                f"the artifact of {self.step} cannot be committed: {reason}; this is a bug in the step's code"
            ) from None
        return data

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Manifest:
        """Parse the manifest stored as `data` at `where`.

        Raises DataError, and nothing else, if it is truncated, altered, of another format or above the limits of this module.
        """
        try:
            content = parse_object(data, MAX_BYTES)
            stored = content.pop("sha256", None)
        except ValueError as error:
            raise DataError(
                f"{where} is truncated or not a manifest ({shorten_message(error)}): {len(data)} bytes with sha256 "
                f"{digest(data)}; {_REMOVE_ARTIFACT}"
            ) from None
        if (found := digest(canonical(content))) != stored:
            raise DataError(f"{where} was altered: expected sha256 {shorten(stored)}, found {found}; {_REMOVE_ARTIFACT}")
        if (format := content.get("manifest")) != FORMAT:
            raise DataError(f"{where} has manifest format {shorten(format)}, this program supports {FORMAT}")
        try:
            return _parse(content)
        except ValueError as error:
            raise DataError(
                f"{where} is not a valid manifest of format {FORMAT}: {shorten_message(error)}; {_REMOVE_ARTIFACT}"
            ) from None


def _parse(content: dict[str, Any]) -> Manifest:
    """Return the manifest that JSON describes. Raises ValueError if a field is missing or invalid."""
    files = _parse_files(_get(content, "files", list))
    return Manifest(
        step=_get(content, "step", str),
        session=parse_iso_date(_get(content, "session", str)),
        inputs={name: _get(content["inputs"], name, str) for name in _get(content, "inputs", dict)},
        files=files,
        rows=_get_count(content, "rows"),
        schema_version=_get_count(content, "schema_version"),
        facts=check_facts(content.get("facts")),
        created=_parse_time(_get(content, "created", str)),
        image=_get(content, "image", str, NoneType),
        commit=_get(content, "commit", str, NoneType),
        code_version=_get_count(content, "code_version") if "code_version" in content else 1,
        reason=_parse_reason(content.get("reason", "")),
        sources=parse_sources(content.get("sources", []), [file.name for file in files]),
    )


def _get(content: dict[str, Any], name: str, *types: type) -> Any:
    value = content.get(name)
    # type(), because a bool is an int for isinstance().
    if type(value) not in types:
        raise ValueError(f"{name} is {shorten(value)}, expected {' or '.join(type.__name__ for type in types)}")
    return value


def _get_count(content: dict[str, Any], name: str) -> int:
    count: int = _get(content, name, int)
    if count < 0:
        raise ValueError(f"{name} is {count}")
    return count


def _parse_reason(reason: object) -> str:
    if not isinstance(reason, str) or len(reason) > MAX_REASON_LENGTH:
        raise ValueError(f"reason is {shorten(reason)}, expected a text of at most {MAX_REASON_LENGTH} characters")
    return reason


def _parse_time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{shorten(text)} has no time zone")
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{shorten(text)} is not a time in UTC") from None


def _parse_files(files: list[Any]) -> tuple[File, ...]:
    if len(files) > MAX_FILES:
        raise ValueError(f"it has {len(files)} files; at most {MAX_FILES} are allowed")
    parsed = []
    for file in files:
        if not isinstance(file, dict):
            raise ValueError(f"a file is {shorten(file)}")
        path, sha256 = check_path(_get(file, "path", str)), _get(file, "sha256", str)
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"the sha256 of {path} is {shorten(sha256)}, expected 64 lower-case hexadecimal digits")
        parsed.append(File(path, sha256, _get_count(file, "size")))
    names = {file.name for file in parsed}
    if MANIFEST in names or len(names) < len(parsed):
        raise ValueError(f"two files have the same name, or one is named {MANIFEST}")
    return tuple(parsed)


def check_path(path: str) -> str:
    """Return `path` if it means the same in an object store, a folder, a URL and a page. Raises ValueError otherwise.

    This is the rule for the names of an artifact's files and the directories in its URI: names of ASCII letters, digits and
    `._=+-`, separated by single slashes. So it excludes wildcards, `..`, spaces, control characters, `%`, `?`, `#` and quotes.
    """
    if len(path) > MAX_PATH_LENGTH or not all(_NAME.fullmatch(name) and name not in (".", "..") for name in path.split("/")):
        raise ValueError(
            f"invalid path {shorten(path)}: use names of ASCII letters, digits and ._=+- of at most {MAX_NAME_LENGTH} "
            f"characters, separated by '/', {MAX_PATH_LENGTH} characters in all"
        )
    return path


def check_facts(facts: object) -> dict[str, Fact]:
    """Return `facts` if they are what a manifest or a result may have. Raises ValueError otherwise.

    Facts are flat: texts, numbers, booleans and nulls by name. They go through XCom into Airflow's database and to Slack, so
    their number and their length are bounded.
    """
    if not isinstance(facts, dict):
        raise ValueError(f"facts are {shorten(facts)}, expected an object")
    if len(facts) > MAX_FACTS:
        raise ValueError(f"there are {len(facts)} facts; at most {MAX_FACTS} are allowed")
    for name, value in facts.items():
        if not 0 < len(name) <= MAX_FACT_NAME_LENGTH:
            raise ValueError(f"the fact {shorten(name)} has a name of {len(name)} characters, not 1 to {MAX_FACT_NAME_LENGTH}")
        if type(value) not in (str, int, float, bool, NoneType):
            raise ValueError(f"the fact {name} is {shorten(value)}, expected a text, a number, a boolean or null")
        if isinstance(value, str) and len(value) > MAX_FACT_LENGTH:
            raise ValueError(f"the fact {name} has {len(value)} characters; at most {MAX_FACT_LENGTH} are allowed")
    return facts


def check_content(where: str, file: File, data: bytes | None) -> bytes:
    """Return `data` if it matches the manifest's `file`. Raises DataError naming `where` and both digests otherwise."""
    if data is None:
        raise damaged_file(where, file, None, "missing")
    if len(data) != file.size or digest(data) != file.sha256:
        raise damaged_file(where, file, len(data), f"sha256 {digest(data)} ({len(data)} bytes)")
    return data


def damaged_file(where: str, file: File, size: int | None, found: str) -> DataError:
    """Return the error about an object at `where` that is not the manifest's `file`; its size is None if it is missing."""
    state = "missing" if size is None else "truncated" if size < file.size else "altered"
    return DataError(
        f"{where} is {state}: expected sha256 {file.sha256} ({file.size} bytes), found {found}; restore it, or run "
        "its step again with --remake REASON, which commits a revision beside it"
    )


def differences(inputs: Mapping[str, str], committed: Mapping[str, str]) -> str:
    """Describe the differences between two sets of inputs; empty if they are equal."""
    names = sorted(inputs.keys() | committed.keys())
    return "; ".join(
        f"{name}: committed {committed.get(name, 'none')}, now {inputs.get(name, 'none')}"
        for name in names
        if inputs.get(name) != committed.get(name)
    )
