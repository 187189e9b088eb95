"""What the source says otherwise than when it was committed: told; committed beside the first, as a revision, by hand."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date

from arro3.io import read_parquet
from step_contract import paths
from step_contract.commit import Committed, open_artifact
from step_contract.errors import DataError
from step_contract.manifest import Manifest
from step_contract.schemas import PRICES_FILE
from step_contract.store import Store

from collector.bars import Bar
from collector.prices import commit_bar, inputs_of

SHOWN = 3


@dataclass(frozen=True)
class Correction:
    """A bar of the source that is not as the latest revision of its session was committed, and what differs in words."""

    bar: Bar
    revision: int
    differs: str


def corrections(store: Store, symbol: str, bars: Iterable[Bar], latest: Mapping[date, str]) -> list[Correction]:
    """The corrections among `bars` to the committed sessions, whose latest manifests' names are `latest`.

    Raises DataError where a manifest is damaged or gone.
    """
    committed = {latest[bar.date]: bar for bar in bars if bar.date in latest}
    found = []
    for name, data in store.read_many(committed).items():
        bar = committed[name]
        if data is None:
            raise DataError(f"{store.uri(name)} was removed while it was read: run the step again")
        if Manifest.from_json(data, store.uri(name)).inputs != inputs_of(symbol, bar):
            found.append(Correction(bar, paths.parse_revision(name), _differences(store.uri(name), bar)))
    return found


def _differences(uri: str, bar: Bar) -> str:
    table = read_parquet(io.BytesIO(open_artifact(uri)[1][PRICES_FILE])).read_all()
    now = asdict(bar)
    was = {name: table.column(name)[0].as_py() for name in table.column_names}
    return ", ".join(f"{name} {was[name]} is now {now[name]}" for name in now if was[name] != now[name])


def take(store: Store, symbol: str, found: Sequence[Correction]) -> list[Committed]:
    """Commits each correction as the next revision of its session, which is what is read from then on."""
    return [commit_bar(store, symbol, one.bar, one.revision + 1) for one in found]


def first_few(texts: Sequence[str]) -> str:
    """The first of `texts`, and how many more there are; empty where there are none."""
    more = [f"and {len(texts) - SHOWN} more"] if len(texts) > SHOWN else []
    return "; ".join([*texts[:SHOWN], *more])


def told(symbol: str, found: Sequence[Correction]) -> str:
    """The corrections in one sentence with what to do; empty where there are none."""
    if not found:
        return ""
    shown = first_few([f"{one.bar.date}: {one.differs}" for one in found])
    first, last = found[0].bar.date, found[-1].bar.date
    which = f"--session {first}" if first == last else f"--from {first} --to {last}"
    return (
        f"the source has corrected what is committed of {symbol}: {shown}. What is committed stays; to have the source's "
        f"figures beside it and read from then on, run collector fetch-prices {which} --take-corrections"
    )
