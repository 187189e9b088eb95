"""Reads and writes objects by name below one root: a local folder (`file://`) or an S3 bucket (`s3://`), through fsspec."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

import fsspec

from step_contract.errors import ConfigurationError, DataError, StepError, TransientError

# What a step, the monitor or the API server holds in memory at once: half of the smallest of them, 512 MiB. A model has 1 MiB.
READ_LIMIT = 256 * 2**20
CHUNK_BYTES = 4 * 2**20
CACHE_BYTES = 64 * 2**20  # of CachingStore; five years of prices have 15 MB

# What the file system or fsspec would not take literally. s3fs cuts "?versionId=" and what follows off a key.
_NOT_LITERAL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]|\?versionId=|(?:^|/)\.\.?(?:/|$)")
_PERMANENT = (errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)
Parsed = TypeVar("Parsed")
_CLIENT_MODULES = ("botocore", "aiobotocore", "aiohttp")


def _s3_options(fail_fast: bool) -> dict[str, Any]:
    # botocore itself reads AWS_ENDPOINT_URL, keys and region. Servers other than Amazon's rarely have a DNS name per bucket.
    own_server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config = {"s3": {"addressing_style": "path"}} if own_server else {}
    timeouts: dict[str, Any] = {"connect_timeout": 10, "read_timeout": 60}
    if fail_fast:
        timeouts = {"connect_timeout": 3, "read_timeout": 10, "retries": {"total_max_attempts": 1}}
    return {"use_listings_cache": False, "config_kwargs": config | timeouts}


class StoredObject(NamedTuple):
    """An object in a listing: its name below the root, its size in bytes, and when it was last written (UTC)."""

    name: str
    size: int
    modified_at: datetime


class Store:
    """The objects below the URL `root`: `file:///folder`, a plain path, or `s3://bucket/prefix`.

    With `fail_fast`, every request has a timeout of seconds and is sent once: for callers that must not block.
    Names of objects are literal: no character is a wildcard. Every method raises ConfigurationError if a setting or a
    permission is missing, TransientError if a retry may help, and DataError if a name is invalid.
    """

    def __init__(self, root: str, *, fail_fast: bool = False) -> None:
        scheme, separator, rest = root.partition("://")
        if not separator and root:
            scheme, rest = "file", str(Path(root).absolute())
        if scheme not in ("file", "s3") or not rest.strip("/"):
            raise ConfigurationError(f"invalid artifacts URL {root!r}: use file:///folder or s3://bucket/prefix")
        if scheme == "file" and not rest.startswith("/"):
            raise ConfigurationError(f"invalid artifacts URL {root!r}: the path must be absolute, such as file:///{rest}")
        if _NOT_LITERAL.search(rest):
            raise ConfigurationError(
                f"invalid artifacts URL {root!r}: '.' and '..', control characters and '?versionId=' are not allowed"
            )
        self.local = scheme == "file"
        self.root = f"{scheme}://{rest.rstrip('/')}"
        self._base = rest.rstrip("/")
        self._fs = fsspec.filesystem(scheme, **({} if self.local else _s3_options(fail_fast)))
        if fail_fast and not self.local:
            self._fs.retries = 1

    def uri(self, path: str) -> str:
        """Return the URI of the object `path`."""
        return f"{self.root}/{path}"

    def _key(self, path: str) -> str:
        """Return the object's name for fsspec. Do not use `cat`, `glob` and S3's `rm`, which expand wildcards."""
        if not _is_literal(path):
            raise DataError(f"invalid name {path[:200]!r} of an object in {self.root}: remove the reference to it")
        return f"{self._base}/{path}"

    @contextmanager
    def _translate_errors(self, action: str, path: str) -> Iterator[None]:
        """Raise what the file system or the S3 client raises as a StepError."""
        try:
            yield
        except (FileNotFoundError, StepError):
            raise
        except (PermissionError, NotADirectoryError, IsADirectoryError) as error:
            advice = "check the name, the credentials and the permissions"
            raise ConfigurationError(f"cannot {action} {self.uri(path)}: {error}; {advice}") from error
        except OSError as error:
            if error.errno in _PERMANENT:
                raise ConfigurationError(f"cannot {action} {self.uri(path)}: {error}; choose another location") from error
            raise TransientError(f"cannot {action} {self.uri(path)}: {error}") from error
        except Exception as error:
            if not type(error).__module__.startswith(_CLIENT_MODULES):
                raise
            if "Credential" in type(error).__name__ or isinstance(error, ValueError):
                advice = "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for a server other than Amazon's, AWS_ENDPOINT_URL"
                raise ConfigurationError(f"cannot {action} {self.uri(path)}: {error}; {advice}") from error
            raise TransientError(f"cannot {action} {self.uri(path)}: {error}") from error

    def _find_info(self, path: str) -> dict[str, Any] | None:
        """Return what the store knows of the object; None if it does not exist."""
        key = self._key(path)
        with self._translate_errors("read", path):
            try:
                info: dict[str, Any] = self._fs.info(key)
            except FileNotFoundError:
                return None
        return info

    def size(self, path: str) -> int | None:
        """Return the object's size in bytes, or None if there is none: a folder or a pipe is no object."""
        info = self._find_info(path)
        return int(info["size"]) if info and info["type"] == "file" else None

    def modified_at(self, path: str) -> datetime | None:
        """Return when the object was last written, by the clock of the store; None if it does not exist. S3: whole seconds."""
        info = self._find_info(path)
        return self._describe(path, info).modified_at if info else None

    def read(self, path: str, limit: int = READ_LIMIT) -> bytes | None:
        """Return the content of the object, or None if it does not exist.

        Raises DataError if it has more than `limit` bytes.
        """
        return self._check_limit(path, self._read_range(path, 0, limit + 1), limit)

    def read_many(self, paths: Iterable[str], limit: int = READ_LIMIT) -> dict[str, bytes | None]:
        """Return the content of each object, or None if it does not exist; concurrently if the store is remote.

        Raises DataError if one has more than `limit` bytes.
        """
        wanted = {path: self._key(path) for path in paths}
        if self.local or len(wanted) < 2:
            return {path: self.read(path, limit) for path in wanted}
        with self._translate_errors("read", ""):
            found = self._fs.cat_ranges(list(wanted.values()), 0, limit + 1, on_error="return")
        contents = {}
        for path, content in zip(wanted, found, strict=True):
            with self._translate_errors("read", path):
                contents[path] = self._check_limit(path, _content_or_none(content), limit)
        return contents

    def read_chunks(self, path: str, size: int) -> Iterator[bytes]:
        """Yield the first `size` bytes of the object in chunks of at most CHUNK_BYTES; fewer if it is smaller or missing."""
        for start in range(0, size, CHUNK_BYTES):
            end = min(start + CHUNK_BYTES, size)
            chunk = self._read_range(path, start, end)
            if chunk:
                yield chunk
            if not chunk or len(chunk) < end - start:
                return

    def _read_range(self, path: str, start: int, end: int) -> bytes | None:
        key = self._key(path)
        with self._translate_errors("read", path):
            try:
                return _content_or_none(self._fs.cat_file(key, start=start, end=end))
            except OSError as error:
                return _content_or_none(error)

    def _check_limit(self, path: str, content: bytes | None, limit: int) -> bytes | None:
        if content is not None and len(content) > limit:
            raise DataError(f"{self.uri(path)} has more than {limit} bytes; remove it and run the step that wrote it again")
        return content

    def write(self, path: str, data: bytes) -> None:
        """Write the object. Only for names that no other writer uses."""
        key = self._key(path)
        with self._translate_errors("write", path), self._folder(path):
            self._fs.pipe_file(key, data)

    def create(self, path: str, data: bytes) -> bool:
        """Create the object atomically; return False, and change nothing, if it exists.

        S3: PUT with `If-None-Match: *`. Folder: a hard link to a temporary file, which fails if the name is taken, as O_EXCL
        does, and never shows a reader a partial file, as O_EXCL would.
        """
        try:
            with self._translate_errors("create", path), self._folder(path):
                if not self.local:
                    self._fs.pipe_file(self._key(path), data, mode="create")
                    return True
                with self._temporary_file(path, data) as temporary:
                    os.link(temporary, self._key(path))
                return True
        except TransientError as error:
            if isinstance(error.__cause__, FileExistsError):
                return False
            raise

    def replace(self, path: str, data: bytes) -> None:
        """Write the object atomically, replacing what exists: a reader sees the old or the new content, never part of one."""
        with self._translate_errors("write", path), self._folder(path):
            if not self.local:
                self._fs.pipe_file(self._key(path), data)
                return
            with self._temporary_file(path, data) as temporary:
                Path(temporary).replace(self._key(path))

    @contextmanager
    def _temporary_file(self, path: str, data: bytes) -> Iterator[str]:
        """Yield the name of a local file beside `path` that holds `data`; remove it afterwards."""
        temporary = self._key(f"{path}.{uuid4().hex[:12]}")
        try:
            self._fs.pipe_file(temporary, data)
            yield temporary
        finally:
            with suppress(FileNotFoundError):
                self._fs.rm_file(temporary)

    @contextmanager
    def _folder(self, path: str) -> Iterator[None]:
        """Create the folder that will hold `path`; report a root, such as a bucket, that does not exist."""
        try:
            if self.local:
                self._fs.makedirs(self._key(path).rpartition("/")[0], exist_ok=True)
            yield
        except FileNotFoundError as error:
            advice = f"create the {'folder' if self.local else 'bucket'} or correct its name"
            raise ConfigurationError(f"cannot write {self.uri(path)}: {error}; {advice}") from error

    def remove_folder(self, path: str) -> None:
        """Remove the object `path` and every object below it, if any."""
        key = self._key(path)
        with self._translate_errors("remove", path):
            try:
                if self.local:
                    self._fs.rm(key, recursive=True)
                    return
                for name in self._fs.find(key):
                    if name == key or name.startswith(f"{key}/"):
                        self._fs.rm_file(name)
            except FileNotFoundError:
                return

    def parse(self, path: str, data: bytes, parser: Callable[[bytes, str], Parsed]) -> Parsed:
        """Return what `parser` makes of the object's content and its URI."""
        return parser(data, self.uri(path))

    def list(self, path: str) -> list[str]:
        """Return the names of all objects below `path`, sorted, relative to the root; without names that are invalid."""
        return [entry.name for entry in self.list_objects(path)]

    def list_objects(self, path: str) -> Sequence[StoredObject]:
        """Return all objects below `path`, sorted by name; without those whose names are invalid."""
        with self._translate_errors("list", path):
            try:
                found = self._fs.find(self._key(path) if path else self._base, detail=True)
            except FileNotFoundError:
                return []
        # S3 lists a folder that is empty, or was filled while it was listed, as an object without content.
        files = {name[len(self._base) + 1 :]: info for name, info in found.items() if info["type"] == "file"}
        return [self._describe(name, info) for name, info in sorted(files.items()) if _is_literal(name)]

    def _describe(self, name: str, info: dict[str, Any]) -> StoredObject:
        time = info["mtime"] if self.local else info["LastModified"]
        modified_at = time.astimezone(UTC) if isinstance(time, datetime) else datetime.fromtimestamp(time, UTC)
        return StoredObject(name, int(info["size"]), modified_at)


def _is_literal(path: str) -> bool:
    return not _NOT_LITERAL.search(path) and "" not in path.split("/")


def _content_or_none(content: bytes | BaseException) -> bytes | None:
    """Return the result of a range read: None if the object is missing, b"" if the range starts past its end.

    Re-raise any other error.
    """
    if isinstance(content, FileNotFoundError):
        return None
    if isinstance(content, BaseException):
        response = getattr(content.__cause__, "response", None) or {}
        if response.get("ResponseMetadata", {}).get("HTTPStatusCode") == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return b""
        raise content
    return bytes(content)


class CachingStore(Store):
    """A store that reads each object of a committed artifact once, for a step that makes many sessions from the same history.

    Such objects are never rewritten. Others, such as the current model, are read each time. A folder in `listed_once` is
    listed once: what others add to it meanwhile is not seen.
    """

    def __init__(self, root: str, listed_once: Collection[str] = ()) -> None:
        super().__init__(root)
        self._listed_once = frozenset(listed_once)
        self._contents: dict[str, bytes] = {}
        self._size = 0
        self._lists: dict[str, list[str]] = {}
        self._parsed: dict[tuple[str, object], Any] = {}

    def list(self, path: str) -> list[str]:
        """Return the names of all objects below `path`, as `Store.list` does."""
        if path not in self._listed_once:
            return super().list(path)
        if path not in self._lists:
            self._lists[path] = super().list(path)
        return self._lists[path]

    def parse(self, path: str, data: bytes, parser: Callable[[bytes, str], Parsed]) -> Parsed:
        """Return what `parser` makes of the object's content and its URI; of one that is kept, once."""
        if self._contents.get(path) is not data:
            return super().parse(path, data, parser)
        if (path, parser) not in self._parsed:
            self._parsed[path, parser] = super().parse(path, data, parser)
        parsed: Parsed = self._parsed[path, parser]
        return parsed

    def read(self, path: str, limit: int = READ_LIMIT) -> bytes | None:
        """Return the content of the object, as `Store.read` does."""
        return self.read_many([path], limit)[path]

    def read_many(self, paths: Iterable[str], limit: int = READ_LIMIT) -> dict[str, bytes | None]:
        """Return the content of each object, as `Store.read_many` does."""
        wanted = list(paths)
        missing = [path for path in wanted if path not in self._contents]
        if self.local or len(missing) < 2:
            read: dict[str, bytes | None] = {path: super(CachingStore, self).read(path, limit) for path in missing}
        else:
            read = super().read_many(missing, limit)
        for path, content in read.items():
            if content is not None and _is_immutable(path) and self._size + len(content) <= CACHE_BYTES:
                self._contents[path] = content
                self._size += len(content)
        return {path: self._check_limit(path, read[path] if path in read else self._contents[path], limit) for path in wanted}


def _is_immutable(path: str) -> bool:
    return path.endswith("/manifest.json") or "/attempt=" in path


class CircuitBreakerStore(Store):
    """A fail-fast Store with a circuit breaker: after a transient error, calls fail for OPEN_SECONDS without a request."""

    OPEN_SECONDS = 30.0

    def __init__(self, root: str) -> None:
        super().__init__(root, fail_fast=True)
        self._closed_at = 0.0

    @contextmanager
    def _translate_errors(self, action: str, path: str) -> Iterator[None]:
        if time.monotonic() < self._closed_at:
            raise TransientError(f"cannot {action} {self.uri(path)}: the store has just failed, its circuit breaker is open")
        try:
            with super()._translate_errors(action, path):
                yield
        except TransientError as error:
            # An object that already exists is not an error of the store.
            if not isinstance(error.__cause__, FileExistsError):
                self._closed_at = time.monotonic() + self.OPEN_SECONDS
            raise
