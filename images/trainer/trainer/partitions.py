"""Reads the price partitions of a symbol."""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
from arro3.io import read_parquet
from step_contract import paths
from step_contract.exit_codes import DataWrong
from step_contract.manifest import File, Manifest, canonical, check_content, digest
from step_contract.store import Store
from step_contract.tables import PRICES_FILE, PRICES_VERSION


@dataclass(frozen=True)
class Partitions:
    """The committed price partitions of a symbol in order of their sessions, and the digest of all that they hold."""

    sessions: list[date]
    files: dict[str, File]
    digest: str


def committed(store: Store, symbol: str, until: date, since: date | None = None, last: int | None = None) -> Partitions:
    """The partitions of `symbol` up to `until`, that day included: those from `since` on, and of them the `last` ones.

    Of a session that was revised it is the latest revision.

    Raises DataWrong when there is none and when a manifest is damaged.
    """
    found = paths.latest(store.list(paths.prices_of(symbol)))
    sessions = [session for session in found if session <= until and (since is None or session >= since)]
    sessions = sessions[-last:] if last else sessions
    if not sessions:
        between = f"from {since} to {until}" if since else f"up to {until}"
        raise DataWrong(
            f"there is no session of {symbol} {between} below {store.uri(paths.prices_of(symbol))}: "
            f"collect them with collector fetch-prices --from YYYY-MM-DD --to {until}"
        )
    files = {}
    for path, manifest in _manifests(store, [found[session] for session in sessions]).items():
        file = manifest.file(PRICES_FILE)
        files[f"{path.rpartition('/')[0]}/{file.path}"] = file
    held = [[session.isoformat(), file.sha256] for session, file in zip(sessions, files.values(), strict=True)]
    return Partitions(sessions, files, digest(canonical(held)))


def read_closes(store: Store, partitions: Partitions) -> npt.NDArray[np.float64]:
    """The close of each of the partitions' sessions, in index points.

    Raises DataWrong when a partition is damaged or its close is no price.
    """
    contents = store.read_many(partitions.files)
    return np.array(
        [
            _close(check_content(store.uri(path), file, contents[path]), session, store.uri(path))
            for session, (path, file) in zip(partitions.sessions, partitions.files.items(), strict=True)
        ]
    )


def _manifests(store: Store, names: list[str]) -> dict[str, Manifest]:
    contents = store.read_many(names)
    manifests = {}
    for name in names:
        data = contents[name]
        if data is None:
            raise DataWrong(f"{store.uri(name)} was removed while the history was read: run the step again")
        manifests[name] = Manifest.from_json(data, store.uri(name))
        if manifests[name].schema_version != PRICES_VERSION:
            version = manifests[name].schema_version
            raise DataWrong(f"{store.uri(name)} has schema version {version}, this program reads {PRICES_VERSION}")
    return manifests


def _close(data: bytes, session: date, where: str) -> float:
    table = read_parquet(io.BytesIO(data)).read_all()
    days = table.column("date").to_pylist()
    if days != [session]:
        held = f"{len(days)} rows, the first of {days[0]}," if days else "no row"
        raise DataWrong(f"{where} holds {held} and must hold {session} alone")
    close = table.column("close")[0].as_py()
    if close is None or not (np.isfinite(close) and close > 0):
        raise DataWrong(f"{where} has the close {close}, which is no price; look at the collector's source")
    return float(close)
