"""The command `verify`: checks every object below the artifacts against what the manifests, the pointers and each other say.

It reads and changes nothing else. One listing finds what is missing, left behind or unknown; every manifest in the range and
every file that it names is read and compared. Manifests and their digests are kept, their content is not, so that memory grows
with the number of artifacts only.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from step_contract import paths
from step_contract.checks.findings import Finding, Status, abbreviate, error, ok, print_findings, run_check, warning
from step_contract.errors import DataError
from step_contract.facts import SummaryFacts
from step_contract.lineage.references import read_sources
from step_contract.lineage.trace import Artifact, Lineage, read_artifacts
from step_contract.result import Result
from step_contract.schemas import TABLES
from step_contract.store import Store, StoredObject

# A run in progress has files without a manifest, and decisions without prices; none takes longer.
GRACE = timedelta(days=1)
BATCH = 256
SCHEMA_VERSIONS = {"prices": "prices.parquet", "headlines": "headlines.parquet"}

VERIFY = """\
Checks every object below --artifacts: the manifests of the range and all files that they name, sources, the current model and
promotions, sessions on which the exchange was open and that have no prices, files of attempts that were never committed, and
objects that are none of the pipeline's. Without --from and --to, everything. Reads only.

  {program} verify --artifacts s3://market
  {program} verify --from 2026-01-01 --to 2026-03-20 --artifacts s3://market --format json

The exit code is 65 if something is missing or damaged, 0 if there are warnings only.
"""


@dataclass
class Inventory:
    """What a listing of the artifacts contains, by kind.

    Attributes:
        artifacts: each artifact's manifests by revision, by directory.
        written: when each manifest was written, by path.
        files: the files of attempts, by the directory of the artifact's revision.
        checkpoints, pointers, unknown: the other objects; those of the monitor are left out.
    """

    artifacts: dict[str, dict[int, str]] = field(default_factory=dict)
    written: dict[str, datetime] = field(default_factory=dict)
    files: dict[str, list[StoredObject]] = field(default_factory=dict)
    checkpoints: list[StoredObject] = field(default_factory=list)
    pointers: list[str] = field(default_factory=list)
    unknown: list[StoredObject] = field(default_factory=list)

    @property
    def manifests(self) -> list[str]:
        """The paths of all manifests, sorted."""
        return sorted(path for revisions in self.artifacts.values() for path in revisions.values())


def take_inventory(objects: Iterable[StoredObject]) -> Inventory:
    """Return the objects by kind."""
    inventory = Inventory()
    for entry in objects:
        match paths.classify(entry.name):
            case paths.ObjectKind.MANIFEST:
                inventory.written[entry.name] = entry.modified_at
            case paths.ObjectKind.FILE:
                inventory.files.setdefault(entry.name.partition("/attempt=")[0], []).append(entry)
            case paths.ObjectKind.CHECKPOINT:
                inventory.checkpoints.append(entry)
            case paths.ObjectKind.POINTER:
                inventory.pointers.append(entry.name)
            case paths.ObjectKind.UNKNOWN:
                inventory.unknown.append(entry)
    inventory.artifacts = paths.group_revisions(inventory.written)
    return inventory


@dataclass
class Verified:
    """The manifests that were read.

    Attributes:
        digests: sha256 by path.
        attempts: of each revision's directory, the attempts that its manifest names.
        size: bytes of all files that were compared.
    """

    digests: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, set[str]] = field(default_factory=dict)
    size: int = 0


def verify_store(store: Store, first: date | None, last: date | None, now: datetime) -> Iterator[Finding]:
    """Yield what is wrong with the artifacts of the sessions from `first` to `last`, or all; at the end what was verified.

    `now` decides whether the files of an attempt may still be committed. Raises as the store does.
    """
    inventory = take_inventory(store.list_objects(""))
    manifests = [path for path in inventory.manifests if _is_in_range(path, first, last)]
    latest = {revisions[max(revisions)] for revisions in inventory.artifacts.values()}
    known, verified, damaged = set(inventory.manifests), Verified(), 0
    for start in range(0, len(manifests), BATCH):
        for finding in verify_batch(store, manifests[start : start + BATCH], latest, known, verified):
            damaged += finding.check == "artifact"
            yield finding
    yield from find_holes(inventory, first, last, now)
    yield from check_pointers(store, inventory.pointers, known)
    yield from find_leftovers(inventory, verified, first, last, now)
    if first is None and last is None:
        yield from find_unknown(inventory)
    if not inventory.artifacts:
        advice = "check --artifacts, and the bucket's name; if the pipeline has not run yet, nothing is wrong"
        yield warning("artifacts", f"there is no artifact below {store.root}", advice)
    amount = f"{len(manifests)} artifacts, {len(manifests) - damaged} of them complete, {format_size(verified.size)}"
    yield ok("artifacts", amount)


def _is_in_range(path: str, first: date | None, last: date | None) -> bool:
    parsed = paths.parse_artifact_path(path)
    return parsed is not None and (first is None or parsed.session >= first) and (last is None or parsed.session <= last)


def verify_batch(
    store: Store, batch: Sequence[str], latest: set[str], known: set[str], verified: Verified
) -> Iterator[Finding]:
    """Yield what is wrong with the artifacts whose manifests are at these paths, and add them to `verified`.

    Args:
        store: where the artifacts are.
        batch: the paths of manifests.
        latest: the manifests that readers use; a damaged earlier revision is a warning.
        known: all manifests that exist.
        verified: what was read so far.
    """
    lineage = Lineage(store, "")
    read_artifacts(lineage, batch)
    for path, artifact in lineage.artifacts.items():
        verified.digests[path] = artifact.sha256
        if artifact.manifest:
            directory = path.rpartition("/")[0]
            verified.attempts[directory] = {file.path.partition("/")[0] for file in artifact.manifest.files}
            verified.size += sum(file.size for file in artifact.manifest.files)
        if artifact.problem:
            yield describe_damage(path, artifact, path in latest)
            continue
        if path in latest:
            yield from check_manifest(path, artifact)
            yield from check_sources(store, path, artifact, known, verified.digests)


def describe_damage(path: str, artifact: Artifact, is_latest: bool) -> Finding:
    """Return the finding of an artifact that is not what its manifest says; its problem says what to do."""
    if is_latest:
        return error("artifact", artifact.problem, "", path)
    return warning("artifact", artifact.problem, "readers use a later revision, so nothing depends on it", path)


def check_manifest(path: str, artifact: Artifact) -> Iterator[Finding]:
    """Yield whether the manifest is of another session than its path, or of an older schema version."""
    parsed, manifest = paths.parse_artifact_path(path), artifact.manifest
    if parsed is None or manifest is None:
        return
    if parsed.session != manifest.session:
        advice = "it was copied by hand: remove it, and run its step for the session"
        yield error("artifact", f"its manifest is of session {manifest.session}", advice, path)
    file = SCHEMA_VERSIONS.get(parsed.kind)
    table = next((table for table in TABLES if table.file == file), None)
    if table and manifest.schema_version < table.version:
        state = "is no longer read" if manifest.schema_version < table.oldest else "is read; to make it anew, remake it"
        status = error if manifest.schema_version < table.oldest else warning
        message = f"schema version {manifest.schema_version} of {table.version}: {state}"
        yield status("outdated", message, "see docs/reprocessing.md", path)


def check_sources(
    store: Store, path: str, artifact: Artifact, known: set[str], digests: Mapping[str, str]
) -> Iterator[Finding]:
    """Yield one finding if sources below the same root are gone, or were altered since: the artifact cannot be traced."""
    if artifact.manifest is None:
        return
    try:
        sources = read_sources(store, path.rpartition("/")[0], artifact.manifest)
    except DataError as problem:
        yield error("artifact", str(problem), "", path)
        return
    problems = []
    for source in sources:
        parts = paths.split_artifact_uri(source.uri)
        if not parts or parts[0] != store.root:
            continue
        if parts[1] not in known:
            problems.append(f"{parts[1]} is missing")
        elif digests.get(parts[1], source.sha256) != source.sha256:
            problems.append(f"{parts[1]} was altered since")
    if problems:
        advice = "restore it from a backup; the artifact itself is complete, but what it was made from is not"
        yield warning("source", f"{len(problems)} of its {len(sources)} sources: {problems[0]}", advice, path)


def find_holes(inventory: Inventory, first: date | None, last: date | None, now: datetime) -> Iterator[Finding]:
    """Yield each session that was decided to be open and has no prices, and the days between two decisions without one.

    A decision of the last day has none yet if its run is in progress, or waits for the source.
    """
    open_days: dict[str, set[date]] = {}
    decided: dict[str, set[date]] = {}
    collected: dict[str, set[date]] = {}
    for path in inventory.manifests:
        parsed = paths.parse_artifact_path(path)
        if parsed is None or not _is_in_range(path, first, last):
            continue
        if parsed.kind == "prices":
            collected.setdefault(parsed.symbol, set()).add(parsed.session)
        elif parsed.kind == "decisions":
            decided.setdefault(parsed.symbol, set()).add(parsed.session)
            if "/state=open/" in path and now - inventory.written[path] > GRACE:
                open_days.setdefault(parsed.symbol, set()).add(parsed.session)
    for symbol, days in sorted(open_days.items()):
        for session in sorted(days - collected.get(symbol, set())):
            advice = f"run collector fetch-prices --session {session} --symbol {symbol}"
            where = f"{paths.prices(symbol, session)}/{paths.MANIFEST}"
            yield error("hole", f"{symbol}: the exchange was open on {session}, and there are no prices", advice, where)
    for symbol, days in sorted(decided.items()):
        between = (min(days) + timedelta(days=number) for number in range((max(days) - min(days)).days))
        if missing := [day for day in between if day not in days]:
            advice = f"make backfill FROM={missing[0]} TO={missing[-1]} makes what is missing"
            yield warning("hole", f"{symbol}: {len(missing)} days without a decision, the first is {missing[0]}", advice)


def check_pointers(store: Store, pointers: Sequence[str], known: set[str]) -> Iterator[Finding]:
    """Yield promotions and current models that are damaged, or name a model that does not exist."""
    for path, data in store.read_many(pointers).items():
        try:
            model = json.loads(data or b"")["model"]
        except (ValueError, KeyError, TypeError):
            advice = "restore it; current.json is written anew by the next training or rollback"
            yield error("pointer", "it is no valid JSON with a model", advice, path)
            continue
        # One that was committed after the listing is not known.
        if model is not None and model not in known and store.size(model) is None:
            advice = "restore the model, or roll back: trainer rollback --reason …"
            yield error("pointer", f"it names {model}, which does not exist", advice, path)


def find_leftovers(
    inventory: Inventory, verified: Verified, first: date | None, last: date | None, now: datetime
) -> Iterator[Finding]:
    """Yield the files of attempts that were not committed, and checkpoints of models that are: they only take up space."""
    orphans = [
        entry
        for directory, entries in inventory.files.items()
        if _is_in_range(f"{directory}/{paths.MANIFEST}", first, last)
        for entry in entries
        if _attempt(entry.name) not in verified.attempts.get(directory, set()) and now - entry.modified_at > GRACE
    ]
    if orphans:
        advice = "nothing reads them: remove them by a lifecycle rule or by hand"
        size = format_size(sum(entry.size for entry in orphans))
        message = f"{len(orphans)} files of attempts that were not committed, {size}; the first is {orphans[0].name}"
        yield warning("orphan", message, advice)
    trained = {directory.partition("/")[2] for directory in inventory.artifacts if directory.startswith("models/")}
    unneeded = [entry for entry in inventory.checkpoints if entry.name.partition("/")[2].partition("/inputs=")[0] in trained]
    unneeded = [entry for entry in unneeded if now - entry.modified_at > GRACE]
    if unneeded:
        size = format_size(sum(entry.size for entry in unneeded))
        message = f"{len(unneeded)} checkpoints of models that are committed, {size}; the first is {unneeded[0].name}"
        yield warning("checkpoint", message, "nothing reads them: remove them by a lifecycle rule or by hand")


def _attempt(name: str) -> str:
    return f"attempt={name.partition('/attempt=')[2].partition('/')[0]}"


def find_unknown(inventory: Inventory) -> Iterator[Finding]:
    """Yield the objects that are none of the pipeline's."""
    if entries := inventory.unknown:
        message = f"{len(entries)} objects that are none of the pipeline's, {format_size(sum(entry.size for entry in entries))}"
        advice = "move them elsewhere: only the pipeline writes below the artifacts"
        yield warning("unknown", f"{message}; the first is {entries[0].name}", advice)


def format_size(size: int) -> str:
    """Return a number of bytes for a person."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


def verify(options: argparse.Namespace) -> Result:
    """Verify the artifacts and print what is wrong.

    Raises DataError if something is missing or damaged.
    """
    if options.first and options.last and options.first > options.last:
        raise DataError(f"--from {options.first} is after --to {options.last}: exchange them")
    found = run_check("verify", lambda: verify_store(options.artifacts, options.first, options.last, datetime.now(UTC)))
    findings = found if options.format == "json" else abbreviate(found)
    list(print_findings(findings, as_json=options.format == "json"))
    counts = {status: sum(finding.status is status for finding in found) for status in Status}
    summary = f"{counts[Status.ERROR]} errors, {counts[Status.WARNING]} warnings"
    if counts[Status.ERROR]:
        raise DataError(f"{summary}: see the lines above and docs/verify.md")
    return Result(facts=SummaryFacts(summary).to_facts())
