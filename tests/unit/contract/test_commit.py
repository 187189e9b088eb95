from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Thread

import fsspec
import pytest
from step_contract.commit import Committed, Content, commit, find, open_artifact
from step_contract.errors import ConfigurationError, DataError
from step_contract.manifest import digest
from step_contract.store import Store

SESSION = date(2026, 3, 20)
DIRECTORY = "prices/symbol=KS11/session=2026-03-20"
ONE_BAR = Content({"prices.parquet": b"PAR1 one bar PAR1"}, rows=1, schema_version=1, facts={"close": 5781.2})


def put(store: Store, inputs: dict[str, str], content: Content = ONE_BAR) -> Committed:
    return commit(store, DIRECTORY, step="fetch-prices", session=SESSION, inputs=inputs, content=content)


def test_a_committed_artifact_is_read_back_complete(artifacts: str) -> None:
    committed = put(Store(artifacts), {"bar": "a"})
    manifest, files = open_artifact(committed.uri)
    assert committed.new
    assert files == {"prices.parquet": b"PAR1 one bar PAR1"}
    assert (manifest.step, manifest.session, manifest.rows, manifest.facts) == ("fetch-prices", SESSION, 1, {"close": 5781.2})


def test_a_second_commit_from_the_same_inputs_returns_the_first(artifacts: str) -> None:
    store = Store(artifacts)
    first = put(store, {"bar": "a"})
    there = store.list("")
    second = put(store, {"bar": "a"}, Content({"prices.parquet": b"other bytes"}, 1, 1, {}))
    assert not second.new
    assert (second.uri, second.manifest) == (first.uri, first.manifest)
    assert store.list("") == there


def test_a_second_commit_from_other_inputs_is_rejected_with_the_difference(artifacts: str) -> None:
    store = Store(artifacts)
    first = put(store, {"bar": "a"})
    there = store.list("")
    with pytest.raises(DataError, match=r"made from other inputs \(bar: committed a, now b\)"):
        put(store, {"bar": "b"})
    with pytest.raises(DataError, match="made from other inputs"):
        find(store, DIRECTORY, {"bar": "b"})
    assert store.list("") == there
    assert open_artifact(first.uri)[0] == first.manifest


def test_an_artifact_without_a_manifest_is_not_found(artifacts: str) -> None:
    store = Store(artifacts)
    store.write(f"{DIRECTORY}/attempt=0/prices.parquet", b"a writer that was killed")
    assert find(store, DIRECTORY, {"bar": "a"}) is None
    assert put(store, {"bar": "a"}).new


def test_concurrent_writers_all_return_the_winners_manifest(artifacts: str) -> None:
    store, start = Store(artifacts), Barrier(8)

    def write(number: int) -> Committed:
        start.wait()
        return put(store, {"bar": "a"}, Content({"prices.parquet": f"writer {number}".encode()}, 1, 1, {}))

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(write, range(8)))
    assert sum(outcome.new for outcome in outcomes) == 1
    assert all(outcome.manifest == outcomes[0].manifest for outcome in outcomes)
    assert len(store.list("")) == 2, "the losers' files are removed"
    open_artifact(outcomes[0].uri)


def test_concurrent_writers_with_different_inputs_are_rejected_but_one(artifacts: str) -> None:
    store, start = Store(artifacts), Barrier(6)

    def write(number: int) -> str:
        start.wait()
        try:
            return "new" if put(store, {"bar": str(number)}).new else "other"
        except DataError:
            return "refused"

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(write, range(6))) == ["new"] + ["refused"] * 5
    assert len(store.list("")) == 2


@pytest.mark.parametrize(
    ("damage", "state", "found"),
    [(b"PAR1 one", "truncated", digest(b"PAR1 one")), (b"PAR1 two bar PAR1", "altered", digest(b"PAR1 two bar PAR1"))],
)
def test_a_damaged_file_is_named_with_both_digests(artifacts: str, damage: bytes, state: str, found: str) -> None:
    store = Store(artifacts)
    committed = put(store, {"bar": "a"})
    file = committed.manifest.file("prices.parquet")
    store.write(f"{DIRECTORY}/{file.path}", damage)
    with pytest.raises(DataError) as error:
        open_artifact(committed.uri)
    for part in (store.uri(f"{DIRECTORY}/{file.path}"), state, file.sha256, found):
        assert part in str(error.value)
    with pytest.raises(DataError, match=state):
        find(store, DIRECTORY, {"bar": "a"})


def test_a_missing_file_is_named_with_its_expected_digest(artifacts: str) -> None:
    store = Store(artifacts)
    committed = put(store, {"bar": "a"})
    file = committed.manifest.file("prices.parquet")
    store.remove_folder(f"{DIRECTORY}/{file.path.partition('/')[0]}")
    with pytest.raises(DataError, match=rf"{file.path} is missing: expected sha256 {file.sha256}"):
        open_artifact(committed.uri)


def test_a_missing_manifest_is_named(artifacts: str) -> None:
    uri = f"{artifacts}/{DIRECTORY}/manifest.json"
    with pytest.raises(DataError, match=rf"{uri} is missing"):
        open_artifact(uri)


def test_a_bucket_that_does_not_exist_is_a_configuration_error(s3: str) -> None:
    with pytest.raises(ConfigurationError, match="create the bucket"):
        put(Store("s3://no-such-bucket-here/market"), {"bar": "a"})


def test_missing_credentials_are_a_configuration_error_naming_the_variables(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.filesystem("s3").clear_instance_cache()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ConfigurationError, match="AWS_ACCESS_KEY_ID"):
        put(Store(s3), {"bar": "a"})
    fsspec.filesystem("s3").clear_instance_cache()


class LosesOneAnswer(BaseHTTPRequestHandler):
    """Forwards requests to the S3 server, but drops the connection instead of the first response about a manifest."""

    protocol_version = "HTTP/1.1"  # the client expects "100 Continue" before it sends a body
    endpoint: str
    lost: int

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server = HTTPConnection(self.endpoint.removeprefix("http://"))
        headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
        server.request(self.command, self.path, body or None, headers)
        answer = server.getresponse()
        content = answer.read()
        if self.command == "PUT" and self.path.endswith("manifest.json") and not type(self).lost:
            type(self).lost += 1
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_DELETE = do_PUT

    def log_message(self, format: str, *values: object) -> None:
        pass


def test_a_writer_whose_response_was_lost_still_wins(s3: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    LosesOneAnswer.endpoint, LosesOneAnswer.lost = s3_endpoint, 0
    with ThreadingHTTPServer(("127.0.0.1", 0), LosesOneAnswer) as proxy:
        Thread(target=proxy.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_address[1]}")
        fsspec.filesystem("s3").clear_instance_cache()
        committed = put(Store(s3), {"bar": "a"})
        proxy.shutdown()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    fsspec.filesystem("s3").clear_instance_cache()
    assert (LosesOneAnswer.lost, committed.new) == (1, True)
    assert open_artifact(committed.uri)[0] == committed.manifest


def test_a_root_that_cannot_be_created_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", Path("/proc/nowhere")):
        with pytest.raises(ConfigurationError, match=str(root)):
            put(Store(str(root)), {"bar": "a"})
