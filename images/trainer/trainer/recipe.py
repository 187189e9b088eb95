"""How a model and its plot are made. Whoever changes it gets an artifact beside the one before, not in its place."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

from step_contract.manifest import canonical, digest

from trainer.configuration import Configuration

MODEL_CODE = ("model.py", "fit.py", "loop.py", "samples.py", "evaluate.py", "significance.py")
PLOT_CODE = ("figure.py", "words.py")


def _code(names: tuple[str, ...]) -> list[str]:
    return [digest(Path(__file__).with_name(name).read_bytes()) for name in names]


@dataclass(frozen=True)
class Recipe:
    """The model's configuration, and the years of history before the session that it sees (None: all that there are)."""

    configuration: Configuration
    history_years: int | None

    @property
    def model(self) -> str:
        """Twelve digits that stand for this recipe and the code that fits and measures a model."""
        return digest(canonical([asdict(self.configuration), self.history_years, _code(MODEL_CODE)]))[:12]

    def plot(self, language: str, past: str) -> str:
        """Twelve digits that stand for the model's recipe, the code that draws, the language, and `past` forecasts."""
        return digest(canonical([self.model, _code(PLOT_CODE), language, past]))[:12]

    def since(self, session: date) -> date | None:
        """The first day that a model of `session` sees; None for all that there are."""
        return session - timedelta(days=round(365.25 * self.history_years)) if self.history_years else None
