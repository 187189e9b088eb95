from __future__ import annotations

from devtools.manifest_diff import diff_manifests, split_objects

BEFORE = """\
---
# Source: airflow/templates/a.yaml
apiVersion: v1
kind: ConfigMap
metadata:
  name: one
data:
  airflow.cfg: |-
    [core]
    parallelism = 16
---
apiVersion: v1
kind: Secret
metadata:
  name: "keys"
data:
  key: "aGlkZGVu"
---
apiVersion: v1
kind: Service
metadata:
  labels:
    name: no
  name: gone
"""
AFTER = BEFORE.replace("= 16", "= 32").replace("aGlkZGVu", "b3RoZXI=").replace("name: gone", "name: new")


def test_a_diff_lists_changed_objects_and_lines() -> None:
    assert diff_manifests(BEFORE, BEFORE.replace("# Source", "# Other")) == ""
    diff = diff_manifests(BEFORE, AFTER)
    assert "~ ConfigMap one" in diff and "-    parallelism = 16" in diff and "+    parallelism = 32" in diff
    assert "+ Service new: new" in diff and "- Service gone: removed" in diff


def test_a_diff_masks_the_values_of_secrets() -> None:
    diff = diff_manifests("", AFTER) + diff_manifests(BEFORE, AFTER) + "".join(split_objects(AFTER).values())
    assert "aGlkZGVu" not in diff and "b3RoZXI" not in diff
    assert "key: (masked)" in split_objects(AFTER)["Secret keys"]
