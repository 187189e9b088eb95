"""What the manifests of the collector's steps name as their sources."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from collector.feeds import Feed
from collector.fetch_headlines import commit_headlines
from step_contract.commit import open_artifact
from step_contract.lineage.sources import Source, SourceList
from step_contract.manifest import digest
from step_contract.store import Store

from .conftest import ROOT, Run

FETCH = ("fetch-prices", "--session", "2026-03-20")


def list_sources(result: object) -> list[Source | SourceList]:
    return list(open_artifact(str(result["manifest"]))[0].sources)  # type: ignore[index]


def test_prices_name_the_years_file_with_its_digest(collector: Run, mirror: Path) -> None:
    file = mirror / "2026.csv"
    assert list_sources(collector(*FETCH)[2]) == [Source("source", f"file://{file}", digest(file.read_bytes()))]


def test_prices_of_a_range_name_the_file_of_their_year(collector: Run, mirror: Path, tmp_path: Path) -> None:
    code, _, _ = collector("fetch-prices", "--from", "2025-12-29", "--to", "2026-01-05")
    assert code == 0
    for session, year in (("2025-12-30", 2025), ("2026-01-05", 2026)):
        uri = f"file://{tmp_path}/artifacts/prices/symbol=KS11/session={session}/manifest.json"
        [source] = open_artifact(uri)[0].sources
        assert source == Source("source", f"file://{mirror}/{year}.csv", digest((mirror / f"{year}.csv").read_bytes()))


def test_what_was_committed_keeps_the_source_that_it_was_made_from(collector: Run, mirror: Path) -> None:
    """The file grows each day; a later run returns the artifact."""
    first = list_sources(collector(*FETCH)[2])
    file = mirror / "2026.csv"
    file.write_bytes(file.read_bytes().rstrip(b"\n") + b"\n")
    assert list_sources(collector(*FETCH)[2]) == first


def test_a_decision_names_the_overrides_and_the_file_that_it_has_looked_at(collector: Run, tmp_path: Path) -> None:
    overrides = tmp_path / "my overrides.csv"
    overrides.write_bytes((ROOT / "images" / "collector" / "collector" / "overrides.csv").read_bytes())
    result = collector("decide", "--session", "2026-03-20", "--overrides", str(overrides))[2]
    roles = {source.role: source for source in list_sources(result)}
    assert list(roles) == ["overrides", "source"]
    assert getattr(roles["overrides"], "sha256", "") == digest(overrides.read_bytes())


@pytest.fixture
def feed(tmp_path: Path) -> Callable[[str], Feed]:
    def make(name: str) -> Feed:
        path = tmp_path / name
        path.write_bytes((ROOT / "data" / "feeds" / name).read_bytes())
        return Feed(name, f"file://{path}")

    return make


def test_headlines_name_the_feeds_that_were_read(feed: Callable[[str], Feed], tmp_path: Path) -> None:
    feeds = [feed("economy.atom"), Feed("down", f"file://{tmp_path}/none.xml"), feed("market.rss")]
    now = datetime(2026, 3, 20, 12, tzinfo=UTC)
    committed = commit_headlines(Store(f"file://{tmp_path}/artifacts"), feeds, date(2026, 3, 20), now)
    data = [(tmp_path / name).read_bytes() for name in ("economy.atom", "market.rss")]
    expected = [Source("feed", feeds[0].url, digest(data[0])), Source("feed", feeds[2].url, digest(data[1]))]
    assert list(committed.manifest.sources) == expected


def test_remade_headlines_name_the_revision_that_they_keep(feed: Callable[[str], Feed], tmp_path: Path) -> None:
    store, feeds, now = Store(f"file://{tmp_path}/artifacts"), [feed("market.rss")], datetime(2026, 3, 20, 12, tzinfo=UTC)
    first = commit_headlines(store, feeds, date(2026, 3, 20), now)
    remade = commit_headlines(store, feeds, date(2026, 3, 20), now, "again")
    manifest = Path(first.uri.removeprefix("file://")).read_bytes()
    assert remade.manifest.sources[0] == Source("headlines", first.uri, digest(manifest))


@pytest.mark.parametrize("url", ["http://user:hidden@127.0.0.1:9/{year}.csv?key=hidden/hidden", "file:///none/{year}.csv"])
def test_an_error_about_a_price_file_shows_no_credential_of_its_url(url: str, collector: Run) -> None:
    """The error is a result: it gets into Airflow's log and database, and to Slack."""
    code, output, result = collector(*FETCH, "--prices-url", url)
    assert (code, "hidden" in output, "hidden" in str(result["error"])) == (69, False, False), output
    assert "/2026.csv" in output
