"""Artifacts that a step is given by the URI of their manifest, and the sources that an artifact names."""

from __future__ import annotations

from datetime import date

from step_contract import paths
from step_contract.commit import read_file
from step_contract.errors import ConfigurationError, DataError
from step_contract.lineage.sources import Source, SourceList, unpack_sources
from step_contract.manifest import Manifest
from step_contract.revisions import Revision, load_revision
from step_contract.store import Store
from step_contract.strict_json import shorten

# The kinds of artifacts that a step may be given, and the step that makes them.
STEPS = {"prices": "fetch-prices", "models": "train"}


def open_reference(store: Store, uri: str, option: str, kind: str, symbol: str, until: date) -> Revision:
    """Return the revision whose manifest is at `uri`, which a person or the DAG gave as the value of `option`.

    Args:
        store: where the artifacts are; the URI must be below it.
        uri: in the form in which a step reports it.
        option: the option's name, for messages.
        kind: what it must be: a key of STEPS.
        symbol: the symbol that it must be of.
        until: the last session that it may be of.

    Raises:
        ConfigurationError: the URI names something else than it must.
        DataError: the manifest is missing or damaged, or another step made it.
    """
    given = f"invalid --{option} {shorten(uri)}"
    if not uri.startswith(f"{store.root}/"):
        raise ConfigurationError(f"{given}: it is not in --artifacts {store.root}; use a URI from there")
    path = paths.parse_artifact_path(uri.removeprefix(f"{store.root}/"))
    if path is None:
        raise ConfigurationError(
            f"{given}: it is not the canonical URI of a manifest; copy it from the result of {STEPS[kind]}"
        )
    if path.kind.removeprefix("pinned-") != kind:  # a person may plot a model that reproduces a past result
        raise ConfigurationError(f"{given}: it is an artifact of {path.kind}, not of {kind}; use one of {STEPS[kind]}")
    if path.symbol != symbol:
        raise ConfigurationError(f"{given}: it is of the symbol {path.symbol}, not of {symbol}; correct it or --symbol")
    if path.session > until:
        raise ConfigurationError(f"{given}: it is of {path.session}, after --session {until}; correct it or --session")
    if store.size(path.path) is None:
        raise DataError(f"{uri} is missing: restore it, or give --{option} another one or none")
    revision = load_revision(store, path.path)
    if (revision.manifest.step, revision.manifest.session) != (STEPS[kind], path.session):
        made = f"{revision.manifest.step} for {revision.manifest.session}"
        raise DataError(f"{uri} is an artifact of {made}: remove it, and run {STEPS[kind]} for {path.session} again")
    if (found := revision.manifest.inputs.get("symbol", symbol)) != symbol:
        raise DataError(f"{uri} was made for the symbol {found} and copied: remove it, and use one of {STEPS[kind]}")
    return revision


def read_sources(store: Store, directory: str, manifest: Manifest) -> list[Source]:
    """Return all sources of the artifact in `directory`, also those that a file of it lists.

    Raises DataError if such a file is missing, damaged or invalid.
    """
    sources: list[Source] = []
    for entry in manifest.sources:
        if isinstance(entry, SourceList):
            file = manifest.file(entry.file)
            data = read_file(store, directory, file)
            try:
                sources += unpack_sources(entry, data)
            except ValueError as error:
                raise DataError(f"{store.uri(directory)}/{file.path} is not a list of sources: {error!s:.300}") from None
        else:
            sources.append(entry)
    return sources
