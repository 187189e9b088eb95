from __future__ import annotations

from datetime import date
from pathlib import Path

from step_contract.store import Store
from trainer.partitions import committed, read_closes

from .conftest import put


def test_of_a_session_that_was_revised_the_latest_revision_is_read(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}")
    for revision, close in enumerate((100.0, *range(101, 111)), start=1):
        put(store, date(2026, 1, 14), close, revision=revision)
    put(store, date(2026, 1, 15), 200.0)
    found = committed(store, "KS11", date(2026, 1, 15))
    assert found.sessions == [date(2026, 1, 14), date(2026, 1, 15)]
    assert read_closes(store, found).tolist() == [110.0, 200.0]
