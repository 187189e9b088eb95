"""The results of each step on the sample, by the version of its logic.

If a change makes other results on purpose, raise the step's `code_version` and record the new digest beside the new version:
otherwise nobody learns that the artifacts of the past are outdated (docs/reprocessing.md).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

from collector import decide, fetch_headlines, prices
from collector.exchange_calendar import calendar_status
from collector.feed_parsing import parse_feed
from collector.feeds import Feed
from collector.year_file import parse_year_file
from step_contract.manifest import canonical, digest
from step_contract.revisions import Logic
from step_contract.tables import to_records

from .conftest import REAL, ROOT

SESSION = date(2026, 3, 20)
RESULTS = {
    ("decide", 1, 1): "3ed93d9d60988663337d75a4840a358cefd60d38deed99e5495a13f181383240",
    ("fetch-prices", 1, 1): "cda1490f42f587e31a3b1d7658c72ebc12e04b782cfad530267dc5a97bb0d345",
    ("fetch-headlines", 1, 1): "55f2b4afa0f20b68bc6e486539aabf2e165643efdcb60c2405c0c3120959c454",
}


def make_decisions() -> object:
    days = [date(2026, 3, number) for number in range(1, 32)]
    made = [decide.make_decision(calendar_status(day), day.weekday() < 4) for day in days]
    return [[decision.state, decision.reason] for decision in made]


def parse_prices() -> object:
    records = to_records(parse_year_file((REAL / "2026.csv").read_bytes(), "2026.csv", 2026))
    return [record | {"date": record["date"].isoformat()} for record in records]


def parse_headlines() -> object:
    folder = ROOT / "data" / "feeds"
    feeds = [Feed(name, f"file:///{name}") for name in ("economy.atom", "market.rss")]
    tables = [parse_feed((folder / feed.name).read_bytes(), feed, SESSION).headlines for feed in feeds]
    records = [record for table in tables for record in to_records(table)]
    return [record | {"published": record["published"].isoformat()} for record in records]


def test_other_results_have_another_code_version() -> None:
    steps: list[tuple[Logic, Callable[[], object]]] = [
        (decide.LOGIC, make_decisions),
        (prices.LOGIC, parse_prices),
        (fetch_headlines.LOGIC, parse_headlines),
    ]
    results = {(logic.step, logic.code_version, logic.schema_version): digest(canonical(run())) for logic, run in steps}
    assert results == RESULTS
