"""Compare rendered Kubernetes manifests object by object, with the values of secrets masked."""

from __future__ import annotations

import difflib
import re

CONTEXT_LINES = 3


def split_objects(manifests: str) -> dict[str, str]:
    """Return each object's text by "KIND NAME", without comments. An object without kind or name is left out."""
    objects = {}
    for document in re.split(r"^---.*$", manifests, flags=re.MULTILINE):
        lines = [line.rstrip() for line in document.splitlines() if line.strip() and not line.startswith("#")]
        kind = next((line.partition(":")[2].strip() for line in lines if line.startswith("kind:")), "")
        metadata = lines.index("metadata:") if "metadata:" in lines else len(lines)
        name = next((line.partition(":")[2].strip() for line in lines[metadata:] if line.startswith("  name:")), "")
        if kind and name:
            objects[f"{kind} {name.strip(chr(34))}"] = _mask_secret(kind, lines)
    return objects


def _mask_secret(kind: str, lines: list[str]) -> str:
    """Return the object's text; the values of a Secret are masked."""
    if kind != "Secret":
        return "\n".join(lines)
    masked, in_data = [], False
    for line in lines:
        if not line.startswith(" "):
            in_data = line.startswith(("data:", "stringData:"))
        masked.append(re.sub(r":\s.*", ": (masked)", line) if in_data and line.startswith(" ") else line)
    return "\n".join(masked)


def diff_manifests(before: str, after: str) -> str:
    """Return the differences between two sets of manifests, object by object; empty if they are equal."""
    old_objects, new_objects = split_objects(before), split_objects(after)
    lines = []
    for name in sorted({*old_objects, *new_objects}):
        old, new = old_objects.get(name), new_objects.get(name)
        if old == new:
            continue
        if old is None or new is None:
            lines.append(f"{'+' if old is None else '-'} {name}: {'new' if old is None else 'removed'}")
            continue
        lines.append(f"~ {name}")
        changes = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=CONTEXT_LINES)
        lines += [f"    {line}" for line in changes if not line.startswith(("---", "+++"))]
    return "\n".join(lines)
