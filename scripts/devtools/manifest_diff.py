"""Rendered manifests as text: told apart, secrets masked, compared. Pure functions."""

from __future__ import annotations

import difflib
import re

CONTEXT_LINES = 3


def objects(text: str) -> dict[str, str]:
    """Each object's text by kind and name, comments left out; an object without them is left out too."""
    found = {}
    for part in re.split(r"^---.*$", text, flags=re.MULTILINE):
        lines = [line.rstrip() for line in part.splitlines() if line.strip() and not line.startswith("#")]
        kind = next((line.partition(":")[2].strip() for line in lines if line.startswith("kind:")), "")
        metadata = lines.index("metadata:") if "metadata:" in lines else len(lines)
        named = next((line.partition(":")[2].strip() for line in lines[metadata:] if line.startswith("  name:")), "")
        if kind and named:
            found[f"{kind} {named.strip(chr(34))}"] = masked(kind, lines)
    return found


def masked(kind: str, lines: list[str]) -> str:
    """The object's text; of a Secret without its values."""
    if kind != "Secret":
        return "\n".join(lines)
    told, within = [], False
    for line in lines:
        if not line.startswith(" "):
            within = line.startswith(("data:", "stringData:"))
        told.append(re.sub(r":\s.*", ": (masked)", line) if within and line.startswith(" ") else line)
    return "\n".join(told)


def difference(before: str, after: str) -> str:
    """What changes from one rendering to the other, object by object; empty where nothing does."""
    old, new = objects(before), objects(after)
    told = []
    for name in sorted({*old, *new}):
        was, will = old.get(name), new.get(name)
        if was == will:
            continue
        if was is None or will is None:
            told.append(f"{'+' if was is None else '-'} {name}: {'new' if was is None else 'removed'}")
            continue
        told.append(f"~ {name}")
        changes = difflib.unified_diff(was.splitlines(), will.splitlines(), lineterm="", n=CONTEXT_LINES)
        told += [f"    {line}" for line in changes if not line.startswith(("---", "+++"))]
    return "\n".join(told)
