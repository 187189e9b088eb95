"""The result channel: how a step tells whoever ran it what it made, or why it could not.

The result is JSON of at most 4 KiB in the file that `STEP_RESULT` names; in a pod that is the termination log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from step_contract.exit_codes import DataWrong
from step_contract.manifest import Fact

VARIABLE = "STEP_RESULT"
LIMIT = 4096


@dataclass(frozen=True)
class Result:
    """What a step has to say: the URI of the manifest it committed with small facts, or the one sentence why it failed."""

    manifest: str | None = None
    facts: Mapping[str, Fact] = field(default_factory=dict)
    error: str | None = None

    def to_json(self) -> bytes:
        """The result as it is handed over; an error is cut to fit, facts that do not fit raise DataWrong."""
        error, facts = self.error, dict(self.facts)
        while True:
            data = json.dumps({"manifest": self.manifest, "facts": facts, "error": error}, ensure_ascii=False).encode()
            if len(data) <= LIMIT:
                return data
            if not error:
                raise DataWrong(f"the result has {len(data)} bytes, more than {LIMIT}: put less into the facts")
            facts, error = {}, error[: len(error) * 3 // 4]

    @classmethod
    def from_json(cls, data: bytes | str) -> Result:
        """The result that a step handed over; raises DataWrong when it is none."""
        try:
            content = json.loads(data)
            result = cls(content["manifest"], content["facts"], content["error"])
        except (ValueError, KeyError, TypeError):
            result = None
        if result is None or not all(isinstance(text, str | None) for text in (result.manifest, result.error)):
            raise DataWrong(f"the step's result is not one: {data[:200]!r}")
        return result
