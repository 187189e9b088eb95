"""The command `lineage`: the lineage of an artifact as a tree of lines."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from step_contract import paths
from step_contract.errors import ConfigurationError, DataError
from step_contract.facts import SummaryFacts
from step_contract.lineage.sources import Source
from step_contract.lineage.trace import SCORED, Artifact, Lineage, group_by_role, trace_lineage
from step_contract.result import Result
from step_contract.store import Store
from step_contract.strict_json import shorten

MAX_SHOWN = 5  # sources of one role; more are summarized
MAX_PROBLEMS = 20
MAX_LENGTH = 2048

LINEAGE = """\
Prints what an artifact was made from, as a tree down to the files that the collector read: the manifests, and of each when it
was made, by which version of the code, commit and image, and its sha256. Every artifact is read and verified.

  {program} lineage s3://market/plots/symbol=KS11/session=2026-01-15/config=71611c1dbcbe/manifest.json

More than five sources of one role are summarized; --all prints each. What is missing or damaged is marked, and the exit code is
65 then. Files outside the artifacts are shown with the sha256 that was recorded, and not read.
"""


def show_lineage(options: argparse.Namespace) -> Result:
    """Print the lineage of the artifact whose manifest is at `options.uri`.

    Raises:
        ConfigurationError: the URI is not that of an artifact's manifest.
        DataError: something in the lineage is missing or damaged; everything else was printed before.
    """
    parts = paths.split_artifact_uri(options.uri)
    root, path = parts or ("", "")
    if not parts or (store := Store(root)).root != root:
        raise ConfigurationError(
            f"invalid URI {shorten(options.uri)}: use the URI of an artifact's manifest as a step prints it, such as "
            "s3://market/plots/symbol=KS11/session=2026-01-15/config=71611c1dbcbe/manifest.json"
        )
    lineage = trace_lineage(store, path)
    for line in render_tree(lineage, options.all):
        print(line)
    problems = lineage.list_problems()
    count = len(lineage.artifacts)
    if problems:
        raise DataError(f"{len(problems)} of {count} artifacts are missing or damaged; the first: {problems[0]}")
    if lineage.limit:
        raise DataError(f"the lineage was not followed to its end: it has {lineage.limit}")
    summary = f"{count} artifacts, all complete"
    print(summary)
    return Result(facts=SummaryFacts(summary).to_facts())


def render_tree(lineage: Lineage, show_all: bool = False) -> Iterator[str]:
    """Yield the lines of the tree; with `show_all`, long lists are not summarized."""
    yield lineage.store.root
    yield from _Tree(lineage, show_all).render_start()


class _Tree:
    """Renders each artifact's sources once; where it appears again, a line refers to that."""

    def __init__(self, lineage: Lineage, show_all: bool) -> None:
        self.lineage, self.show_all = lineage, show_all
        self.shown: set[str] = set()

    def render_start(self) -> Iterator[str]:
        """Yield the lines of the artifact that the lineage is of."""
        start = self.lineage.artifacts[self.lineage.start]
        yield start.path
        yield from self._render_artifact(start, start.problem, "")

    def _render_artifact(self, artifact: Artifact, problem: str, indent: str) -> Iterator[str]:
        groups = [] if artifact.path in self.shown else list(group_by_role(artifact.sources).values())
        bar = "│  " if groups else "   "
        if problem:
            yield f"{indent}{bar}PROBLEM: {_clean(problem)}"
        if manifest := artifact.manifest:
            yield f"{indent}{bar}{_clean(f'{manifest.step} of {manifest.session}, created {manifest.created.isoformat()}')}"
            yield f"{indent}{bar}{_describe_origin([artifact])}, sha256 {artifact.sha256}"
            if manifest.reason:
                yield f"{indent}{bar}reason: {_clean(manifest.reason)}"
            if artifact.path in self.shown:
                yield f"{indent}{bar}its sources are shown above"
            elif not manifest.sources:
                yield f"{indent}{bar}its manifest names no sources"
        self.shown.add(artifact.path)
        yield from self._render_groups(groups, indent)

    def _render_groups(self, groups: Sequence[Sequence[Source]], indent: str) -> Iterator[str]:
        blocks = [block for group in groups for block in self._split(group)]
        for number, block in enumerate(blocks):
            is_last = number == len(blocks) - 1
            branch, below = ("└─ ", "   ") if is_last else ("├─ ", "│  ")
            render = self._render_source(block[0]) if len(block) == 1 else self._render_summary(block)
            for position, line in enumerate(render):
                yield f"{indent}{branch if position == 0 else below}{line}"

    def _split(self, group: Sequence[Source]) -> list[Sequence[Source]]:
        """Return the sources of one role as they are shown: each by itself, or all together."""
        return [[source] for source in group] if self.show_all or len(group) <= MAX_SHOWN else [group]

    def _render_source(self, source: Source) -> Iterator[str]:
        artifact = self.lineage.find(source)
        if artifact is None:
            followed = "" if paths.split_artifact_uri(source.uri) is None else ", not followed"
            yield _clean(f"{source.role}: {source.uri}{followed}")
            yield f"   sha256 {source.sha256}"
            return
        yield _clean(f"{source.role}: {artifact.path}")
        if source.role == SCORED and not artifact.is_followed:
            yield from self._render_problems([source])
            return
        yield from self._render_artifact(artifact, self.lineage.describe_problem(source), "")

    def _render_summary(self, group: Sequence[Source]) -> Iterator[str]:
        artifacts = [artifact for source in group if (artifact := self.lineage.find(source))]
        role = group[0].role
        if not artifacts:
            uris = sorted({source.uri for source in group})
            versions = f" in {len(group):,} versions" if len(group) > len(uris) else ""
            yield _clean(f"{role}: {len(uris):,} files{versions}, from {uris[0]} to {uris[-1]}")
            return
        sessions = sorted(paths.parse_session(artifact.path) for artifact in artifacts)
        yield f"{role}: {len(group):,} sessions from {sessions[0]} to {sessions[-1]}"
        new = [artifact for artifact in artifacts if artifact.path not in self.shown]
        merged = [] if role == SCORED else list(group_by_role(source for each in new for source in each.sources).values())
        bar = "│  " if merged else "   "
        known = [artifact.manifest for artifact in artifacts if artifact.manifest]
        if known:
            created = sorted(manifest.created for manifest in known)
            yield f"{bar}created from {created[0].isoformat()} to {created[-1].isoformat()}"
            yield f"{bar}{_describe_origin(artifacts)}"
        for line in self._render_problems(group):
            yield f"{bar}{line.lstrip()}"
        if role != SCORED:
            self.shown |= {artifact.path for artifact in artifacts}
            if len(new) < len(artifacts):
                yield f"{bar}the sources of {len(artifacts) - len(new):,} of them are shown above"
        yield from self._render_groups(merged, "")

    def _render_problems(self, group: Sequence[Source]) -> Iterator[str]:
        problems = [
            f"{artifact.path}: {problem}"
            for source in group
            if (problem := self.lineage.describe_problem(source)) and (artifact := self.lineage.find(source))
        ]
        for problem in problems[:MAX_PROBLEMS]:
            yield f"   PROBLEM: {_clean(problem)}"
        if len(problems) > MAX_PROBLEMS:
            yield f"   and {len(problems) - MAX_PROBLEMS} more problems"


def _describe_origin(artifacts: Sequence[Artifact]) -> str:
    """Return versions of the code, commits and images of the artifacts, as a phrase."""
    manifests = [artifact.manifest for artifact in artifacts if artifact.manifest]
    values = {
        "code version": {str(manifest.code_version) for manifest in manifests},
        "commit": {manifest.commit or "unknown" for manifest in manifests},
        "image": {manifest.image or "none" for manifest in manifests},
    }
    return ", ".join(
        f"{len(found)} {name}s" if len(found) > MAX_SHOWN else f"{name} {_clean(' and '.join(sorted(found)))}"
        for name, found in values.items()
    )


def _clean(text: str) -> str:
    """Return text of a manifest for a terminal: in one line, bounded, without control characters."""
    shown = "".join(character if character.isprintable() else "?" for character in text[:MAX_LENGTH])
    return f"{shown}…" if len(text) > MAX_LENGTH else shown
