"""Validate every object against the Kubernetes API's schemas, which also reject unknown fields."""

from __future__ import annotations

import json
from collections.abc import Iterable
from copy import deepcopy
from functools import cache
from pathlib import Path

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from devtools.commands import ROOT

from .conftest import parse_manifests
from .container_checks import Object, parse_objects

KUBERNETES_VERSION = "1.34"
# Kinds without a schema, which are not validated. No custom resource is rendered today.
CUSTOM_RESOURCES: frozenset[str] = frozenset()
# The values files in tests/e2e are not manifests.
MANIFESTS = sorted(
    file
    for folder in ("dev/manifests", "tests/e2e")
    for file in (ROOT / folder).rglob("*.yaml")
    if not file.match("values-*.yaml")
)


@cache
def validate_object(text: str) -> str:
    """Return the schema error of an object, given as JSON; empty if it is valid. Cached: environments share many objects."""
    manifest = json.loads(text)
    name = f"{manifest['kind']} {manifest['metadata']['name']}"
    try:
        kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)
    except kubernetes_validate.SchemaNotFoundError as error:
        return "" if manifest["kind"] in CUSTOM_RESOURCES else f"{name}: {error.message}"
    except kubernetes_validate.ValidationError as error:
        return f"{name}, {'.'.join(map(str, error.path))}: {error.message}"
    return ""


def validate_objects(objects: Iterable[Object]) -> str:
    """Return the schema errors, one per line."""
    return "\n".join(error for manifest in objects if (error := validate_object(json.dumps(manifest, sort_keys=True))))


def test_every_rendered_object_is_valid(objects: list[Object]) -> None:
    assert len(objects) > 30
    assert not validate_objects(objects)


def test_every_rendered_object_is_valid_with_pgbouncer(rendered_with_pgbouncer: str) -> None:
    assert not validate_objects(parse_manifests(rendered_with_pgbouncer))


@pytest.mark.parametrize("path", MANIFESTS, ids=[path.name for path in MANIFESTS])
def test_every_manifest_is_valid(path: Path) -> None:
    objects = parse_objects(path.read_text())
    assert objects and not validate_objects(objects)


def test_unknown_fields_wrong_types_and_unknown_kinds_are_invalid() -> None:
    objects = parse_objects((ROOT / "dev" / "manifests" / "slack.yaml").read_text())
    [valid] = [manifest for manifest in objects if manifest["kind"] == "Deployment"]
    misspelled, mistyped = deepcopy(valid), deepcopy(valid)
    misspelled["spec"]["template"]["spec"]["containers"][0]["imagePullpolicy"] = "Never"
    mistyped["spec"]["replicas"] = "one"
    unknown = valid | {"kind": "Deploy"}
    for invalid, text in ((misspelled, "imagePullpolicy"), (mistyped, "spec.replicas"), (unknown, "schema")):
        assert text in validate_objects([invalid])


def test_a_duplicate_key_is_rejected() -> None:
    with pytest.raises(yaml.YAMLError, match="duplicate keys"):
        parse_objects("kind: Service\nmetadata: {name: a, name: b}\n")
