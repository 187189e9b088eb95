"""Facts of a step's result that other packages read by name: small scalars, as in every result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from step_contract.manifest import Fact


@dataclass(frozen=True)
class HeadlinesFacts:
    """The facts of the step `fetch-headlines`.

    Attributes:
        session: as an ISO date.
        headlines: how many were collected.
        feeds: how many there are, of which `broken` could not be read.
        broken_feeds: names and errors of broken feeds, as a person should read them.
        undated: entries without a valid date.
    """

    session: str
    headlines: int
    feeds: int
    broken: int = 0
    broken_feeds: str = ""
    undated: int = 0

    def to_facts(self) -> dict[str, Fact]:
        """Return the facts, without those that are zero or empty by default."""
        optional = ("broken", "broken_feeds", "undated")
        return {name: value for name, value in asdict(self).items() if value or name not in optional}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> HeadlinesFacts | None:
        """Return the facts of a result; None if it is another step's, or a fact has the wrong type."""
        names = cls.__dataclass_fields__
        try:
            parsed = cls(**{name: value for name, value in facts.items() if name in names})
        except TypeError:
            return None
        numbers = (parsed.headlines, parsed.feeds, parsed.broken, parsed.undated)
        are_numbers = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
        return parsed if are_numbers and isinstance(parsed.session, str) and isinstance(parsed.broken_feeds, str) else None
