"""The commit protocol under any order of writers, crashes and damage."""

from __future__ import annotations

import shutil
import tempfile
from datetime import date
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from step_contract.commit import Content, commit, find, load, open_artifact
from step_contract.errors import DataError
from step_contract.manifest import Manifest
from step_contract.store import Store

DIRECTORY = "prices/symbol=KS11/session=2026-03-20"
inputs = st.sampled_from([{"bar": "a"}, {"bar": "b"}, {"bar": "a", "symbol": "KS11"}])
bodies = st.binary(max_size=20)


class Protocol(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="protocol-"))
        self.store = Store(f"file://{self.folder}")
        self.committed: Manifest | None = None
        self.body = b""
        self.whole = True
        self.crashed = 0

    @rule(inputs=inputs, body=bodies)
    def write(self, inputs: dict[str, str], body: bytes) -> None:
        """A writer comes: the first is kept, who agrees gets the first, who differs or finds damage is refused."""
        content = Content({"prices.parquet": body}, rows=1, schema_version=1, facts={})
        try:
            session = date(2026, 3, 20)
            put = commit(self.store, DIRECTORY, step="fetch-prices", session=session, inputs=inputs, content=content)
        except DataError:
            assert self.committed and (inputs != self.committed.inputs or not self.whole)
            return
        assert put.new == (self.committed is None)
        if put.new:
            self.committed, self.body = put.manifest, body
        assert put.manifest == self.committed and put.manifest.inputs == inputs and self.whole

    @rule(body=bodies)
    def crash(self, body: bytes) -> None:
        """A writer is killed before its manifest."""
        self.crashed += 1
        self.store.write(f"{DIRECTORY}/attempt=crash{self.crashed}/prices.parquet", body)

    @precondition(lambda self: self.committed is not None and self.whole)
    @rule(body=bodies)
    def damage(self, body: bytes) -> None:
        """Somebody writes into the artifact."""
        assert self.committed
        self.store.write(f"{DIRECTORY}/{self.committed.files[0].path}", body)
        self.whole = body == self.body

    @precondition(lambda self: not self.whole)
    @rule()
    def restore(self) -> None:
        """The artifact comes back from a backup."""
        assert self.committed
        self.store.write(f"{DIRECTORY}/{self.committed.files[0].path}", self.body)
        self.whole = True

    @invariant()
    def the_first_manifest_stays(self) -> None:
        assert load(self.store, DIRECTORY) == self.committed

    @invariant()
    def a_reader_gets_the_first_writers_bytes_or_an_error(self) -> None:
        if self.committed is None:
            assert find(self.store, DIRECTORY, {"bar": "a"}) is None
            return
        try:
            manifest, files = open_artifact(self.store.uri(f"{DIRECTORY}/manifest.json"))
            assert (manifest, files) == (self.committed, {"prices.parquet": self.body}) and self.whole
        except DataError:
            assert not self.whole

    @invariant()
    def nothing_stays_but_the_artifact_and_what_a_crash_left(self) -> None:
        assert len(self.store.list(DIRECTORY)) == self.crashed + (2 if self.committed else 0)

    def teardown(self) -> None:
        shutil.rmtree(self.folder)


TestProtocol = Protocol.TestCase
TestProtocol.settings = settings(max_examples=60, stateful_step_count=12, deadline=None)
