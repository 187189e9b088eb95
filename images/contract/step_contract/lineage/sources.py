"""What an artifact was made from (its lineage): the sources that its manifest names, each by role, URI and sha256.

A source is another artifact, by its manifest, or a file that the collector read. A few are part of the manifest. Many of one
role, such as the price partitions of a training, are a file of the artifact that `sha256sum --check` understands: a manifest is
limited to 1 MiB, and every reader of the artifact reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from step_contract.paths import split_artifact_uri
from step_contract.strict_json import shorten

# Of one role in a manifest; more are a file. A plot's sessions are fewer, a forecast's and a training's are more.
MAX_LISTED = 100
MAX_ENTRIES = 256
MAX_URI_LENGTH = 2048
# A price partition each: some four hundred years.
MAX_COUNT = 100_000
LIST_SUFFIX = ".sha256"

_ROLE = re.compile(r"[a-z][a-z-]{0,31}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_QUERY = re.compile(r"[?#]")
# A folder's name may have spaces of any script, which are not printable by Python's definition.
_LINE_BREAK_OR_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SCHEMES = ("file", "s3", "http", "https")


@dataclass(frozen=True)
class Source:
    """An object that an artifact was made from.

    Attributes:
        role: what it was used as, such as `prices` or `model`.
        uri: of an artifact's manifest, or of a file; without user, password, query and fragment, which may be credentials.
        sha256: of the object's bytes, in hexadecimal.
    """

    role: str
    uri: str
    sha256: str


@dataclass(frozen=True)
class SourceList:
    """Sources of one role that a file of the artifact lists.

    Attributes:
        role: of each.
        file: the file's final name. Its lines are a sha256, two spaces, and a path relative to `root`.
        root: of the artifacts; empty if the lines have whole URIs.
        count: the number of lines.
    """

    role: str
    file: str
    root: str
    count: int


def source_of_file(role: str, url: str, data: bytes) -> Source:
    """Return the source for a file that was read from `url`."""
    return Source(role, redact_url(url), sha256(data).hexdigest())


def redact_url(url: str) -> str:
    """Return the URL without user, password, query and fragment, any of which may be a credential.

    The name of a file or of an object in a bucket may have the characters of these: only a bucket's user is removed.
    """
    scheme, separator, rest = url.partition("://")
    if scheme in ("http", "https"):
        rest = _QUERY.split(rest, maxsplit=1)[0]  # first: a query may have slashes and another URL
    host, slash, path = rest.partition("/")
    return url if scheme == "file" else f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def pack_sources(sources: Iterable[Source]) -> tuple[dict[str, bytes], tuple[Source | SourceList, ...]]:
    """Return the files that list the sources of a role if there are many, by name, and the manifest's entries."""
    roles: dict[str, dict[Source, None]] = {}
    for source in sources:
        roles.setdefault(source.role, {})[source] = None
    files: dict[str, bytes] = {}
    entries: list[Source | SourceList] = []
    for role, found in roles.items():
        if len(found) <= MAX_LISTED:
            entries += found
            continue
        split = [split_artifact_uri(source.uri) for source in found]
        roots = {parts[0] if parts else "" for parts in split}
        root = roots.pop() if len(roots) == 1 else ""
        names = [parts[1] if root and parts else source.uri for parts, source in zip(split, found, strict=True)]
        name = f"{role}{LIST_SUFFIX}"
        lines = (f"{source.sha256}  {name}\n" for name, source in zip(names, found, strict=True))
        files[name] = "".join(lines).encode()
        entries.append(SourceList(role, name, root, len(found)))
    return files, tuple(entries)


def unpack_sources(entry: SourceList, data: bytes) -> list[Source]:
    """Return the sources that the file of `entry` lists. Raises ValueError if it is invalid."""
    lines = data.decode().splitlines()
    if len(lines) != entry.count:
        raise ValueError(f"{entry.file} has {len(lines)} lines, expected {entry.count}")
    sources = []
    for line in lines:
        checksum, separator, name = line.partition("  ")
        if not separator:
            raise ValueError(f"{entry.file} has the line {shorten(line)}, expected a sha256, two spaces and a path")
        uri = f"{entry.root}/{name}" if entry.root else name
        sources.append(_check(Source(entry.role, uri, checksum)))
    return sources


def sources_to_json(entries: Iterable[Source | SourceList]) -> list[dict[str, Any]]:
    """Return the manifest's entries as JSON."""
    return [dict(vars(entry)) for entry in entries]


def parse_sources(content: object, files: Sequence[str]) -> tuple[Source | SourceList, ...]:
    """Return the manifest's entries; `files` are the names of the artifact's files. Raises ValueError if they are invalid."""
    if not isinstance(content, list) or len(content) > MAX_ENTRIES:
        raise ValueError(f"sources are {shorten(content)}, expected a list of at most {MAX_ENTRIES} entries")
    entries = tuple(_parse_entry(entry, files) for entry in content)
    lists = [entry for entry in entries if isinstance(entry, SourceList)]
    if len({entry.file for entry in lists}) < len(lists) or sum(entry.count for entry in lists) > MAX_COUNT:
        raise ValueError(f"two lists of sources are the same file, or they have more than {MAX_COUNT} sources in all")
    return entries


def _parse_entry(content: object, files: Sequence[str]) -> Source | SourceList:
    if not isinstance(content, Mapping):
        raise ValueError(f"a source is {shorten(content)}, expected an object")
    fields = {name: value for name, value in content.items() if isinstance(value, str)}
    if set(content) == {"role", "uri", "sha256"} == set(fields):
        return _check(Source(**fields))
    count = content.get("count")
    if set(content) != {"role", "file", "root", "count"} or set(fields) != {"role", "file", "root"}:
        raise ValueError(f"the source {shorten(content)} has neither role, uri and sha256 nor role, file, root and count")
    if type(count) is not int or not 0 < count <= MAX_COUNT:
        raise ValueError(f"a list of sources has the count {shorten(count)}, expected 1 to {MAX_COUNT}")
    if fields["file"] not in files:
        raise ValueError(f"the artifact has no file {shorten(fields['file'])}, which lists sources")
    if fields["root"]:
        _check(Source(fields["role"], f"{fields['root']}/", "0" * 64))  # as the sources below it
    _check_role(fields["role"])
    return SourceList(**fields, count=count)


def _check(source: Source) -> Source:
    _check_role(source.role)
    if not _SHA256.fullmatch(source.sha256):
        raise ValueError(f"the sha256 of a source is {shorten(source.sha256)}, expected 64 lower-case hexadecimal digits")
    scheme, separator, rest = source.uri.partition("://")
    if not separator or scheme not in _SCHEMES or _LINE_BREAK_OR_CONTROL.search(source.uri) or len(source.uri) > MAX_URI_LENGTH:
        raise ValueError(f"a source has the URI {shorten(source.uri)}, expected one of {', '.join(_SCHEMES)}")
    if redact_url(source.uri) != source.uri:
        # Without the URI, which may have a credential.
        raise ValueError(f"the URI of a source at {shorten(rest.rpartition('@')[2].partition('/')[0])} has a user or a query")
    return source


def _check_role(role: str) -> None:
    if not _ROLE.fullmatch(role):
        raise ValueError(f"a source has the role {shorten(role)}, expected lower-case letters and '-'")
