"""Verification needs the same memory for any artifact, and reading is bounded."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import pytest
from step_contract.commit import open_artifact, verify_artifact
from step_contract.errors import DataError
from step_contract.manifest import File, Manifest
from step_contract.store import READ_LIMIT, Store

MIB = 2**20
SIZE = 300 * MIB
MAX_GROWTH = 64 * MIB
ZEROS = bytes(MIB)
# Loads all modules with a small artifact, then measures the large one.
MEASURE = """
import resource, sys
from step_contract.commit import verify_artifact
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
small, large = sys.argv[1:]
verify_artifact(small)
before = peak()
manifest = verify_artifact(large)
print(peak() - before, manifest.files[0].size)
"""


def make_manifest(size: int) -> bytes:
    """Return the manifest of an artifact of one file, `size` zeros."""
    total = hashlib.sha256()
    for start in range(0, size, MIB):
        total.update(ZEROS[: min(MIB, size - start)])
    file = File("attempt=1/zeros.bin", total.hexdigest(), size)
    return Manifest("zeros", date(2026, 3, 20), {}, (file,), 0, 1, {}, datetime.now(UTC)).to_json()


def write_sparse(store: Store, folder: Path, name: str, size: int) -> str:
    store.write(f"{name}/manifest.json", make_manifest(size))
    path = folder / name / "attempt=1" / "zeros.bin"
    path.parent.mkdir()
    path.touch()
    os.truncate(path, size)
    return store.uri(f"{name}/manifest.json")


class ObjectsOfZeros(BaseHTTPRequestHandler):
    """An S3 server with manifests, and files of zeros that exist only while they are sent."""

    protocol_version = "HTTP/1.1"
    manifests: dict[str, bytes]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        folder = path.rsplit("/attempt=1/", 1)[0].rsplit("/attempt%3D1/", 1)[0].removesuffix("/manifest.json")
        manifest = self.manifests[folder]
        size = len(manifest) if path.endswith("/manifest.json") else json.loads(manifest)["files"][0]["size"]
        start, end = 0, size - 1
        if requested := self.headers.get("Range"):
            start, end = (int(part) for part in requested.removeprefix("bytes=").split("-"))
            end = min(end, size - 1)
        self.send_response(206 if requested else 200)
        self.send_header("Content-Length", str(end - start + 1))
        self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if path.endswith("/manifest.json"):
            self.wfile.write(manifest[start : end + 1])
            return
        for position in range(start, end + 1, MIB):
            self.wfile.write(ZEROS[: min(MIB, end + 1 - position)])

    do_HEAD = do_GET

    def log_message(self, format: str, *values: object) -> None:
        pass


@pytest.fixture
def s3_of_zeros(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    ObjectsOfZeros.manifests = {"/bucket/small": make_manifest(1), "/bucket/large": make_manifest(SIZE)}
    with ThreadingHTTPServer(("127.0.0.1", 0), ObjectsOfZeros) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            monkeypatch.setenv(name, "test")
        fsspec.filesystem("s3").clear_instance_cache()
        yield "s3://bucket"
        server.shutdown()
    fsspec.filesystem("s3").clear_instance_cache()


def measure(small: str, large: str) -> tuple[int, int]:
    """Return the growth of the peak memory of a process that verifies the large artifact, and that artifact's size."""
    ran = subprocess.run([sys.executable, "-c", MEASURE, small, large], stdout=subprocess.PIPE, check=True, timeout=120)
    growth, size = ran.stdout.split()
    return int(growth), int(size)


def test_verifying_300_mib_in_a_folder_needs_constant_memory(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}")
    small, large = (write_sparse(store, tmp_path, name, size) for name, size in (("small", 1), ("large", SIZE)))
    growth, size = measure(small, large)
    assert size == SIZE and growth < MAX_GROWTH


def test_verifying_300_mib_in_a_bucket_needs_constant_memory(s3_of_zeros: str) -> None:
    growth, size = measure(f"{s3_of_zeros}/small/manifest.json", f"{s3_of_zeros}/large/manifest.json")
    assert size == SIZE and growth < MAX_GROWTH


def test_an_artifact_above_the_read_limit_is_not_read_into_memory(tmp_path: Path) -> None:
    uri = write_sparse(Store(f"file://{tmp_path}"), tmp_path, "large", READ_LIMIT + 1)
    with pytest.raises(DataError, match="at most"):
        open_artifact(uri)
    assert verify_artifact(uri).files[0].size == READ_LIMIT + 1


def test_a_file_of_another_size_is_rejected_without_reading_it(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}")
    uri = write_sparse(store, tmp_path, "a", 1)
    os.truncate(tmp_path / "a" / "attempt=1" / "zeros.bin", 2**30)
    with pytest.raises(DataError, match=r"altered: expected sha256 .* \(1 bytes\), found 1073741824 bytes"):
        verify_artifact(uri)
    with pytest.raises(DataError, match="more than 1 bytes"):
        open_artifact(uri)
