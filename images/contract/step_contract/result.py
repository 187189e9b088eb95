"""The result channel: how a step reports its artifact, or the reason why it failed, to the operator.

The result is JSON of at most 4 KiB in the file that `STEP_RESULT` names; in a pod that is the termination log.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from step_contract.errors import DataError
from step_contract.manifest import MAX_FACT_LENGTH, Fact, check_facts
from step_contract.strict_json import parse_object, shorten, shorten_message

RESULT_VARIABLE = "STEP_RESULT"
MAX_BYTES = 4096
SUMMARY, MIN_SUMMARY_LENGTH = "summary", 200  # of facts.SummaryFacts; it is not truncated to less
# A line of the step's log that begins so names the architectures: describe_platform.
PLATFORM_PREFIX = "platform: "
KERNEL_ARCHITECTURE = Path("/proc/sys/kernel/arch")  # Linux 6.1 and later; an emulated process sees the node's own


@dataclass(frozen=True)
class Result:
    """What a step reports: the URI of the manifest that it committed and small facts, or the reason why it failed.

    `is_new` is for the program itself and not serialized: whether it committed the artifact, or found it.
    """

    manifest: str | None = None
    facts: Mapping[str, Fact] = field(default_factory=dict)
    error: str | None = None
    is_new: bool = field(default=True, compare=False)

    def to_json(self) -> bytes:
        """Serialize the result, truncating an error or the facts' summary if it is too long: the step's log has all of it.

        Raises DataError if the facts are invalid or do not fit.
        """
        facts = dict(self.facts)
        if isinstance(summary := facts.get(SUMMARY), str):
            facts[SUMMARY] = _truncate(summary, MAX_FACT_LENGTH)
        error = self.error and self.error.encode(errors="backslashreplace").decode().replace("\0", " ")
        while True:
            text = json.dumps({"manifest": self.manifest, "facts": facts, "error": error}, ensure_ascii=False)
            data = text.encode(errors="surrogatepass")
            if len(data) <= MAX_BYTES:
                self.from_json(data)  # a step fails by itself rather than by its reader
                return data
            summary = facts.get(SUMMARY)
            if error:
                facts, error = {}, error[: len(error) * 3 // 4]
            elif isinstance(summary, str) and len(summary) > MIN_SUMMARY_LENGTH:
                facts[SUMMARY] = _truncate(summary, max(len(summary) * 3 // 4, MIN_SUMMARY_LENGTH))
            else:
                raise DataError(f"the result has {len(data)} bytes; at most {MAX_BYTES} are allowed: put less into the facts")

    @classmethod
    def from_json(cls, data: bytes | str) -> Result:
        """Parse a step's result. Raises DataError, and nothing else, if it is invalid."""
        try:
            content = parse_object(data, MAX_BYTES)
            manifest, error = content["manifest"], content["error"]
            if not (isinstance(manifest, str | None) and isinstance(error, str | None)):
                raise ValueError("manifest and error must be texts or null")
            return cls(manifest, check_facts(content["facts"]), error)
        except KeyError as missing:
            raise DataError(f"invalid step result, it has no {missing}: {shorten(data)}") from None
        except ValueError as problem:
            raise DataError(f"invalid step result ({shorten_message(problem)}): {shorten(data)}") from None


def _truncate(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def describe_platform(kernel: Path = KERNEL_ARCHITECTURE) -> str:
    """Return the architecture that this program was built for and that of the node, where the kernel exposes it."""
    image = platform.machine()
    try:
        node = kernel.read_text().strip()
    except OSError:
        return f"image {image}, node unknown"
    return f"image {image}, node {node}" + ("" if node == image else " (emulated)")
