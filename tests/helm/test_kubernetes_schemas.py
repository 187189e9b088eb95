"""Every object against the schemas of the Kubernetes API, strictly: unknown fields are errors, as wrong types are."""

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

from .conftest import objects_of
from .container_checks import Object, parsed

KUBERNETES = "1.34"
# Kinds without a schema, which are not validated: custom resources. None is rendered today.
CUSTOM_RESOURCES: frozenset[str] = frozenset()
# In tests/e2e the other YAML files are values of charts.
MANIFESTS = sorted(
    file for folder in ("manifests", "tests/e2e") for file in (ROOT / folder).rglob("*.yaml") if not file.match("values-*.yaml")
)


@cache
def defect(text: str) -> str:
    """What is wrong with the object that is JSON in `text`; empty where nothing is. Environments share many objects."""
    one = json.loads(text)
    name = f"{one['kind']} {one['metadata']['name']}"
    try:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError as error:
        return "" if one["kind"] in CUSTOM_RESOURCES else f"{name}: {error.message}"
    except kubernetes_validate.ValidationError as error:
        return f"{name}, {'.'.join(map(str, error.path))}: {error.message}"
    return ""


def defects(objects: Iterable[Object]) -> str:
    """The defects, one a line."""
    return "\n".join(found for one in objects if (found := defect(json.dumps(one, sort_keys=True))))


def test_every_rendered_object_fits_its_schema(objects: list[Object]) -> None:
    assert len(objects) > 30
    assert not defects(objects)


def test_every_object_fits_its_schema_with_connection_pooling(pooled: str) -> None:
    assert not defects(objects_of(pooled))


@pytest.mark.parametrize("path", MANIFESTS, ids=[path.name for path in MANIFESTS])
def test_every_manifest_fits_its_schema(path: Path) -> None:
    objects = parsed(path.read_text())
    assert objects and not defects(objects)


def test_unknown_fields_wrong_types_and_unknown_kinds_are_defects() -> None:
    [good] = [one for one in parsed((ROOT / "manifests" / "slack.yaml").read_text()) if one["kind"] == "Deployment"]
    misspelt, mistyped = deepcopy(good), deepcopy(good)
    misspelt["spec"]["template"]["spec"]["containers"][0]["imagePullpolicy"] = "Never"
    mistyped["spec"]["replicas"] = "one"
    for bad, telling in ((misspelt, "imagePullpolicy"), (mistyped, "spec.replicas"), (good | {"kind": "Deploy"}, "schema")):
        assert telling in defects([bad])


def test_a_key_that_is_there_twice_is_refused() -> None:
    with pytest.raises(yaml.YAMLError, match="repeated keys"):
        parsed("kind: Service\nmetadata: {name: a, name: b}\n")
