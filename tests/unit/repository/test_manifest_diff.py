from __future__ import annotations

from devtools.manifest_diff import difference, objects

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


def test_a_difference_names_objects_and_lines_and_an_equal_rendering_has_none() -> None:
    assert difference(BEFORE, BEFORE.replace("# Source", "# Other")) == ""
    told = difference(BEFORE, AFTER)
    assert "~ ConfigMap one" in told and "-    parallelism = 16" in told and "+    parallelism = 32" in told
    assert "+ Service new: new" in told and "- Service gone: removed" in told


def test_a_secrets_values_are_in_no_difference() -> None:
    told = difference("", AFTER) + difference(BEFORE, AFTER) + "".join(objects(AFTER).values())
    assert "aGlkZGVu" not in told and "b3RoZXI" not in told
    assert "key: (masked)" in objects(AFTER)["Secret keys"]
