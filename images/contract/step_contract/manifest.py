"""The manifest: what an artifact consists of and what it was made from. Without a manifest there is no artifact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import sha256
from typing import Any

from step_contract.errors import DataError

FORMAT = 1

Fact = str | int | float | bool | None


def digest(data: bytes) -> str:
    """Return the sha256 of `data` in hexadecimal."""
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

    Attributes:
        inputs: everything that the content depends on; runs with equal inputs may share the artifact.
        facts: small values for whoever reads the result.
        rows: the number of records in tabular files, 0 if there are none.
        schema_version: the version of the files' schema.
        created: UTC.
        image: the image that made it, if known; `commit` likewise.
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

    def file(self, name: str) -> File:
        """Return the file with that final name. Raises DataError if the artifact has none."""
        for file in self.files:
            if file.name == name:
                return file
        raise DataError(f"the artifact of {self.step} for {self.session} has no {name}, only {[f.name for f in self.files]}")

    def to_json(self) -> bytes:
        """Serialize the manifest: readable JSON that carries the sha256 of its own canonical content."""
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
        content["sha256"] = digest(canonical(content))
        return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Manifest:
        """Parse the manifest stored as `data` at `where`. Raises DataError if it is truncated, altered or of another format."""
        try:
            content = json.loads(data)
            stored = content.pop("sha256")
            found = digest(canonical(content))
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
            raise DataError(
                f"{where} is truncated or not a manifest: {len(data)} bytes with sha256 {digest(data)}, no valid digest; "
                "remove it with the files beside it and run its step again"
            ) from None
        if found != stored:
            raise DataError(
                f"{where} was altered: expected sha256 {stored}, found {found}; "
                "remove it with the files beside it and run its step again"
            )
        if content.get("manifest") != FORMAT:
            raise DataError(f"{where} has manifest format {content.get('manifest')!r}, this program supports {FORMAT}")
        try:
            return cls(
                step=content["step"],
                session=date.fromisoformat(content["session"]),
                inputs=dict(content["inputs"]),
                files=tuple(File(_inside(str(f["path"])), str(f["sha256"]), int(f["size"])) for f in content["files"]),
                rows=int(content["rows"]),
                schema_version=int(content["schema_version"]),
                facts=dict(content["facts"]),
                created=datetime.fromisoformat(content["created"]),
                image=content["image"],
                commit=content["commit"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where} is not a valid manifest of format {FORMAT}: {error!r}") from None


def _inside(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"{path!r} points outside the artifact")
    return path


def check_content(where: str, file: File, data: bytes | None) -> bytes:
    """Return `data` if it matches the manifest's `file`. Raises DataError naming `where` and both digests otherwise."""
    found = "missing" if data is None else f"sha256 {digest(data)} ({len(data)} bytes)"
    expected = f"sha256 {file.sha256} ({file.size} bytes)"
    if data is not None and found == expected:
        return data
    state = "missing" if data is None else "truncated" if len(data) < file.size else "altered"
    raise DataError(
        f"{where} is {state}: expected {expected}, found {found}; restore it, or remove the whole artifact "
        "and run its step again"
    )


def differences(inputs: Mapping[str, str], committed: Mapping[str, str]) -> str:
    """Describe the differences between two sets of inputs; empty if they are equal."""
    names = sorted(inputs.keys() | committed.keys())
    return "; ".join(
        f"{name}: committed {committed.get(name, 'none')}, now {inputs.get(name, 'none')}"
        for name in names
        if inputs.get(name) != committed.get(name)
    )
