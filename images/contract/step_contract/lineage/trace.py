"""The lineage of an artifact: what it was made from, down to the files that the collector read.

`trace_lineage` reads and verifies each artifact that the manifests name, once. A manifest cannot make it read anything outside
the root of the artifacts: a file elsewhere is known by its digest only, and an artifact is looked up by its path below the
root, so that a copy of the artifacts has a lineage too. The numbers of artifacts, sources and levels are limited. The module
`report` renders the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from step_contract import paths
from step_contract.commit import verify
from step_contract.errors import DataError
from step_contract.lineage.references import read_sources
from step_contract.lineage.sources import Source
from step_contract.manifest import MAX_BYTES, File, Manifest, check_content, digest
from step_contract.store import Store

# Each revision of a session's headlines names the one that it extends.
MAX_LEVELS = 100
MAX_ARTIFACTS = 100_000
MAX_SOURCES = 500_000
# Read together. A manifest has at most 1 MiB, and a file of more is verified by itself.
BATCH = 64
BATCH_FILE_BYTES = 2**18
# What a forecast was compared with is verified, but its own sources are not followed: each names a year of earlier ones.
SCORED = "scored-forecasts"


@dataclass
class Artifact:
    """An artifact in a lineage.

    Attributes:
        path: of its manifest, below the root.
        sha256: of the manifest's bytes; empty if it is missing.
        manifest: None if it is missing or damaged.
        problem: what is missing or damaged, as a sentence; empty if nothing is.
        sources: what it was made from, as its manifest names them.
        is_followed: whether its sources were read.
    """

    path: str
    sha256: str = ""
    manifest: Manifest | None = None
    problem: str = ""
    sources: list[Source] = field(default_factory=list)
    is_followed: bool = False


@dataclass
class Lineage:
    """The lineage of one artifact.

    Attributes:
        store: the root of the artifacts.
        start: the path of the artifact's manifest.
        artifacts: all artifacts that were read, by path.
        limit: the limit that was reached, so that not everything was read; empty for none.
    """

    store: Store
    start: str
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    limit: str = ""

    def find(self, source: Source) -> Artifact | None:
        """Return the artifact that a source names; None if it is a file, or was not read."""
        parts = paths.split_artifact_uri(source.uri)
        return self.artifacts.get(parts[1]) if parts else None

    def describe_problem(self, source: Source) -> str:
        """Return what is wrong with a source, as a phrase; empty if nothing is known to be."""
        artifact = self.find(source)
        if artifact is None:
            return ""
        if not artifact.problem and artifact.sha256 != source.sha256:
            return f"altered: expected sha256 {source.sha256}, found {artifact.sha256}"
        return artifact.problem

    def list_problems(self) -> list[str]:
        """Return every problem once, each with the path of its artifact."""
        found = {f"{path}: {artifact.problem}": None for path, artifact in self.artifacts.items() if artifact.problem}
        for artifact in self.artifacts.values():
            for source in artifact.sources:
                if (problem := self.describe_problem(source)) and (target := self.find(source)):
                    found[f"{target.path}: {problem}"] = None
        return list(found)


def trace_lineage(store: Store, path: str) -> Lineage:
    """Return the lineage of the artifact whose manifest is at `path`, breadth first.

    Nothing raises because it is missing or damaged; the artifact's `problem` states it. Raises TransientError and
    ConfigurationError as the store does.
    """
    lineage = Lineage(store, path)
    pending = {path: True}
    sources = 0
    for _ in range(MAX_LEVELS):
        read_artifacts(lineage, [name for name in pending if name not in lineage.artifacts])
        following: dict[str, bool] = {}
        for name, follow in pending.items():
            artifact = lineage.artifacts.get(name)
            if not follow or artifact is None or artifact.is_followed or artifact.manifest is None:
                continue
            artifact.is_followed = True
            try:
                artifact.sources = read_sources(store, name.rpartition("/")[0], artifact.manifest)
            except DataError as error:
                artifact.problem = artifact.problem or str(error)
            sources += len(artifact.sources)
            if sources > MAX_SOURCES:
                lineage.limit = f"more than {MAX_SOURCES:,} sources"
                return lineage
            for source in artifact.sources:
                if parts := paths.split_artifact_uri(source.uri):
                    following[parts[1]] = following.get(parts[1], False) or source.role != SCORED
        pending = following
        if len(lineage.artifacts) + len(pending) > MAX_ARTIFACTS:
            lineage.limit = f"more than {MAX_ARTIFACTS:,} artifacts"
            return lineage
        if all(name in lineage.artifacts and lineage.artifacts[name].is_followed >= follow for name, follow in pending.items()):
            return lineage
    lineage.limit = f"more than {MAX_LEVELS} levels"
    return lineage


def read_artifacts(lineage: Lineage, names: Sequence[str]) -> None:
    """Read and verify the artifacts whose manifests are at `names`, and add them to the lineage."""
    store = lineage.store
    for start in range(0, len(names), BATCH):
        batch = names[start : start + BATCH]
        files: dict[str, tuple[Artifact, File]] = {}
        for name, data in _read_many(store, batch, MAX_BYTES).items():
            artifact = lineage.artifacts[name] = Artifact(name, digest(data) if isinstance(data, bytes) else "")
            try:
                artifact.manifest = _parse_manifest(store, name, data)
                directory = name.rpartition("/")[0]
                small = [file for file in artifact.manifest.files if file.size <= BATCH_FILE_BYTES]
                if len(small) < len(artifact.manifest.files) or len(small) > BATCH:
                    verify(store, directory, artifact.manifest)
                else:
                    files |= {f"{directory}/{file.path}": (artifact, file) for file in small}
            except DataError as error:
                artifact.problem = str(error)
        for name, data in _read_many(store, list(files), BATCH_FILE_BYTES).items():
            artifact, file = files[name]
            try:
                check_content(store.uri(name), file, _raise_if_error(data))
            except DataError as error:
                artifact.problem = artifact.problem or str(error)


def _parse_manifest(store: Store, name: str, data: bytes | DataError | None) -> Manifest:
    content = _raise_if_error(data)
    if content is None:
        raise DataError(f"{store.uri(name)} is missing: restore it")
    return Manifest.from_json(content, store.uri(name))


def _raise_if_error(data: bytes | DataError | None) -> bytes | None:
    if isinstance(data, DataError):
        raise data
    return data


def _read_many(store: Store, names: Sequence[str], limit: int) -> Mapping[str, bytes | DataError | None]:
    """Return the content of each object, None if it is missing, or the error if it has more than `limit` bytes."""
    try:
        return store.read_many(names, limit)
    except DataError:  # of one of them: read each by itself
        contents: dict[str, bytes | DataError | None] = {}
        for name in names:
            try:
                contents[name] = store.read(name, limit)
            except DataError as error:
                contents[name] = error
        return contents


def group_by_role(sources: Iterable[Source]) -> dict[str, list[Source]]:
    """Return the sources by role, without duplicates, in the order of the roles."""
    roles: dict[str, dict[Source, None]] = {}
    for source in sources:
        roles.setdefault(source.role, {})[source] = None
    return {role: list(found) for role, found in roles.items()}
