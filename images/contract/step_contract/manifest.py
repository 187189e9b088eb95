"""The manifest: what an artifact consists of and what it was made from. No manifest, no artifact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import sha256
from typing import Any

from step_contract.exit_codes import DataWrong

FORMAT = 1

Fact = str | int | float | bool | None


def digest(data: bytes) -> str:
    """The sha256 of `data` in hexadecimal."""
    return sha256(data).hexdigest()


def canonical(content: object) -> bytes:
    """`content` as JSON, always the same bytes for equal content."""
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
    """One artifact.

    `inputs` is all that the content depends on: two runs with equal inputs may share the artifact. `facts` are small
    values for whoever reads the result. `rows` counts the records of tabular files, 0 where there are none.
    `schema_version` is that of the files' content. `created` is UTC. `image` and `commit` say what made it, where known.
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
        """The file of that final name; raises DataWrong when the artifact has none."""
        for file in self.files:
            if file.name == name:
                return file
        raise DataWrong(f"the artifact of {self.step} for {self.session} has no {name}, only {[f.name for f in self.files]}")

    def to_json(self) -> bytes:
        """The manifest as it is stored: readable JSON that carries the sha256 of its own canonical content."""
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
        """The manifest that was stored as `data` at `where`; raises DataWrong when it is torn, altered or of another format."""
        try:
            content = json.loads(data)
            stored = content.pop("sha256")
            found = digest(canonical(content))
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
            raise DataWrong(
                f"{where} is torn or no manifest: {len(data)} bytes with sha256 {digest(data)} that do not hold the digest "
                "they must; remove it with the files beside it and run its step again"
            ) from None
        if found != stored:
            raise DataWrong(
                f"{where} was altered: its content has sha256 {found}, it says {stored}; "
                "remove it with the files beside it and run its step again"
            )
        if content.get("manifest") != FORMAT:
            raise DataWrong(f"{where} has manifest format {content.get('manifest')!r}, this program reads {FORMAT}")
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
            raise DataWrong(f"{where} is no manifest of format {FORMAT}: {error!r}") from None


def _inside(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"{path!r} leads out of the artifact")
    return path


def check_content(where: str, file: File, data: bytes | None) -> bytes:
    """`data` itself when it is what the manifest says `file` holds; raises DataWrong naming `where` and both digests."""
    found = "missing" if data is None else f"sha256 {digest(data)} ({len(data)} bytes)"
    expected = f"sha256 {file.sha256} ({file.size} bytes)"
    if data is not None and found == expected:
        return data
    state = "missing" if data is None else "torn" if len(data) < file.size else "altered"
    raise DataWrong(
        f"{where} is {state}: the manifest says {expected}, found {found}; restore it, or remove the whole artifact "
        "and run its step again"
    )


def differences(inputs: Mapping[str, str], committed: Mapping[str, str]) -> str:
    """What differs between two sets of inputs, for a person; empty when they agree."""
    names = sorted(inputs.keys() | committed.keys())
    return "; ".join(
        f"{name}: committed {committed.get(name, 'none')}, now {inputs.get(name, 'none')}"
        for name in names
        if inputs.get(name) != committed.get(name)
    )
