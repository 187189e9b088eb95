"""Objects by name below one root, in a local folder (`file://`) or an S3 bucket (`s3://`), through fsspec."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec

from step_contract.errors import ConfigurationError, StepError, TransientError

_PERMANENT = (errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)
_CLIENT_MODULES = ("botocore", "aiobotocore", "aiohttp")


def _s3_options(fail_fast: bool) -> dict[str, Any]:
    # botocore itself reads AWS_ENDPOINT_URL, keys and region. Servers other than Amazon's rarely have a DNS name per bucket.
    own_server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config = {"s3": {"addressing_style": "path"}} if own_server else {}
    timeouts: dict[str, Any] = {"connect_timeout": 10, "read_timeout": 60}
    if fail_fast:
        timeouts = {"connect_timeout": 3, "read_timeout": 10, "retries": {"total_max_attempts": 1}}
    return {"use_listings_cache": False, "config_kwargs": config | timeouts}


class Store:
    """The objects below the URL `root`: `file:///folder`, a plain path, or `s3://bucket/prefix`.

    With `fail_fast`, every request has a timeout of seconds and is sent once: for callers that must not block.
    Every method raises ConfigurationError if a setting or a permission is missing, and TransientError if a retry may help.
    """

    def __init__(self, root: str, *, fail_fast: bool = False) -> None:
        scheme, separator, rest = root.partition("://")
        if not separator and root:
            scheme, rest = "file", str(Path(root).absolute())
        if scheme not in ("file", "s3") or not rest.strip("/"):
            raise ConfigurationError(f"invalid store {root!r}: use file:///folder or s3://bucket/prefix")
        if scheme == "file" and not rest.startswith("/"):
            raise ConfigurationError(f"invalid store {root!r}: the path must be absolute, such as file:///{rest}")
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

    def read(self, path: str) -> bytes | None:
        """Return the content of the object, or None if it does not exist."""
        with self._translate_errors("read", path):
            try:
                return bytes(self._fs.cat_file(self._key(path)))
            except FileNotFoundError:
                return None

    def read_many(self, paths: Iterable[str]) -> dict[str, bytes | None]:
        """Return the content of each object, or None if it does not exist; concurrently if the store is remote."""
        wanted = {self._key(path): path for path in paths}
        if self.local or len(wanted) < 2:
            return {path: self.read(path) for path in wanted.values()}
        with self._translate_errors("read", ""):
            found = self._fs.cat(list(wanted), on_error="return")
            for key, content in found.items():
                if isinstance(content, FileNotFoundError):
                    found[key] = None
                elif isinstance(content, BaseException):
                    with self._translate_errors("read", wanted[key]):
                        raise content
        return {path: found[key] for key, path in wanted.items()}

    def write(self, path: str, data: bytes) -> None:
        """Write the object. Only for names that no other writer uses."""
        with self._translate_errors("write", path), self._folder(path):
            self._fs.pipe_file(self._key(path), data)

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
        """Remove every object below `path`, if any."""
        with self._translate_errors("remove", path):
            try:
                self._fs.rm(self._key(path), recursive=True)
            except FileNotFoundError:
                return

    def list(self, path: str) -> list[str]:
        """Return the names of all objects below `path`, sorted, relative to the root."""
        with self._translate_errors("list", path):
            try:
                found = self._fs.find(self._key(path))
            except FileNotFoundError:
                return []
        return sorted(name[len(self._base) + 1 :] for name in found)


class CircuitBreakerStore(Store):
    """A fail-fast Store that, after a transient error, raises at once for a while instead of asking the store again."""

    OPEN_SECONDS = 30.0

    def __init__(self, root: str) -> None:
        super().__init__(root, fail_fast=True)
        self._closed_at = 0.0

    @contextmanager
    def _translate_errors(self, action: str, path: str) -> Iterator[None]:
        if time.monotonic() < self._closed_at:
            raise TransientError(f"cannot {action} {self.uri(path)}: the store did not respond moments ago")
        try:
            with super()._translate_errors(action, path):
                yield
        except TransientError as error:
            # An object that already exists is not an error of the store.
            if not isinstance(error.__cause__, FileExistsError):
                self._closed_at = time.monotonic() + self.OPEN_SECONDS
            raise
