"""Objects by name under one root, on a local folder (`file://`) or an S3 bucket (`s3://`), through fsspec."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec

from step_contract.exit_codes import ConfigurationWrong, PassingFault, StepError

_LASTING = (errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)  # what another try does not mend
_FOREIGN = ("botocore", "aiobotocore", "aiohttp")


def _s3_options(hurried: bool) -> dict[str, Any]:
    # botocore itself reads AWS_ENDPOINT_URL, keys and region. A server that is not Amazon's rarely has a DNS name a bucket.
    own_server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config = {"s3": {"addressing_style": "path"}} if own_server else {}
    bounds: dict[str, Any] = {"connect_timeout": 10, "read_timeout": 60}
    if hurried:
        bounds = {"connect_timeout": 3, "read_timeout": 10, "retries": {"total_max_attempts": 1}}
    return {"use_listings_cache": False, "config_kwargs": config | bounds}


class Store:
    """The objects below the URL `root`: `file:///folder`, a plain path, or `s3://bucket/prefix`.

    `hurried`: for who may wait seconds and no longer; each thing is tried once.
    Every method raises ConfigurationWrong where a setting or a right is missing and PassingFault where another try may help.
    """

    def __init__(self, root: str, *, hurried: bool = False) -> None:
        scheme, separator, rest = root.partition("://")
        if not separator and root:
            scheme, rest = "file", str(Path(root).absolute())
        if scheme not in ("file", "s3") or not rest.strip("/"):
            raise ConfigurationWrong(f"the store {root!r} is not one: write file:///folder or s3://bucket/prefix")
        if scheme == "file" and not rest.startswith("/"):
            raise ConfigurationWrong(f"the store {root!r} has no absolute path: write file:///{rest}")
        self.local = scheme == "file"
        self.root = f"{scheme}://{rest.rstrip('/')}"
        self._base = rest.rstrip("/")
        self._fs = fsspec.filesystem(scheme, **({} if self.local else _s3_options(hurried)))
        if hurried and not self.local:
            self._fs.retries = 1

    def uri(self, path: str) -> str:
        """The full URI of the object `path`."""
        return f"{self.root}/{path}"

    def _key(self, path: str) -> str:
        return f"{self._base}/{path}"

    @contextmanager
    def _told(self, what: str, path: str) -> Iterator[None]:
        """Turns what the file system or the S3 client raises into a step's errors."""
        try:
            yield
        except (FileNotFoundError, StepError):
            raise
        except (PermissionError, NotADirectoryError, IsADirectoryError) as error:
            advice = "check the name, the credentials and the rights"
            raise ConfigurationWrong(f"cannot {what} {self.uri(path)}: {error}; {advice}") from error
        except OSError as error:
            if error.errno in _LASTING:
                raise ConfigurationWrong(f"cannot {what} {self.uri(path)}: {error}; choose another place") from error
            raise PassingFault(f"cannot {what} {self.uri(path)}: {error}") from error
        except Exception as error:
            if not type(error).__module__.startswith(_FOREIGN):
                raise
            if "Credential" in type(error).__name__ or isinstance(error, ValueError):
                advice = "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for a server that is not Amazon's, AWS_ENDPOINT_URL"
                raise ConfigurationWrong(f"cannot {what} {self.uri(path)}: {error}; {advice}") from error
            raise PassingFault(f"cannot {what} {self.uri(path)}: {error}") from error

    def read(self, path: str) -> bytes | None:
        """The content of the object, or None where there is none."""
        with self._told("read", path):
            try:
                return bytes(self._fs.cat_file(self._key(path)))
            except FileNotFoundError:
                return None

    def read_many(self, paths: Iterable[str]) -> dict[str, bytes | None]:
        """The content of each object, or None where there is none; at once where the store is remote."""
        wanted = {self._key(path): path for path in paths}
        if self.local or len(wanted) < 2:
            return {path: self.read(path) for path in wanted.values()}
        with self._told("read", ""):
            found = self._fs.cat(list(wanted), on_error="return")
            for key, content in found.items():
                if isinstance(content, FileNotFoundError):
                    found[key] = None
                elif isinstance(content, BaseException):
                    with self._told("read", wanted[key]):
                        raise content
        return {path: found[key] for key, path in wanted.items()}

    def write(self, path: str, data: bytes) -> None:
        """Writes the object. Only for names that no other writer uses."""
        with self._told("write", path), self._folder(path):
            self._fs.pipe_file(self._key(path), data)

    def create(self, path: str, data: bytes) -> bool:
        """Creates the object whole if it is absent; False, and nothing done, where it is there already.

        S3: PUT with `If-None-Match: *`. Folder: a hard link from a file that was written beside it, which fails when the name
        is taken, as O_EXCL does, and never shows a reader half a file, as O_EXCL would.
        """
        try:
            with self._told("create", path), self._folder(path):
                if not self.local:
                    self._fs.pipe_file(self._key(path), data, mode="create")
                    return True
                with self._whole_beside(path, data) as whole:
                    os.link(whole, self._key(path))
                return True
        except PassingFault as fault:
            if isinstance(fault.__cause__, FileExistsError):
                return False
            raise

    def replace(self, path: str, data: bytes) -> None:
        """Writes the object whole, in place of what is there: a reader sees the old or the new, never half of one."""
        with self._told("write", path), self._folder(path):
            if not self.local:
                self._fs.pipe_file(self._key(path), data)
                return
            with self._whole_beside(path, data) as whole:
                Path(whole).replace(self._key(path))

    @contextmanager
    def _whole_beside(self, path: str, data: bytes) -> Iterator[str]:
        """The name of a local file beside `path` that holds all of `data`; gone afterwards."""
        whole = self._key(f"{path}.{uuid4().hex[:12]}")
        try:
            self._fs.pipe_file(whole, data)
            yield whole
        finally:
            with suppress(FileNotFoundError):
                self._fs.rm_file(whole)

    @contextmanager
    def _folder(self, path: str) -> Iterator[None]:
        """Makes the folder that will hold `path`, and tells of a root, a bucket for instance, that cannot be made so."""
        try:
            if self.local:
                self._fs.makedirs(self._key(path).rpartition("/")[0], exist_ok=True)
            yield
        except FileNotFoundError as error:
            advice = f"create the {'folder' if self.local else 'bucket'} or correct its name"
            raise ConfigurationWrong(f"cannot write {self.uri(path)}: {error}; {advice}") from error

    def remove_folder(self, path: str) -> None:
        """Removes every object below `path`; nothing where there is none."""
        with self._told("remove", path):
            try:
                self._fs.rm(self._key(path), recursive=True)
            except FileNotFoundError:
                return

    def list(self, path: str) -> list[str]:
        """The names of all objects below `path`, sorted, relative to the root."""
        with self._told("list", path):
            try:
                found = self._fs.find(self._key(path))
            except FileNotFoundError:
                return []
        return sorted(name[len(self._base) + 1 :] for name in found)
