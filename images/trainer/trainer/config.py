"""How a model and its plot are made. Whoever changes it gets an artifact beside the one before, not in its place."""

from __future__ import annotations

import math
import tomllib
from dataclasses import asdict, dataclass, fields
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from step_contract.errors import ConfigurationError
from step_contract.manifest import canonical, digest

MODEL_CODE = ("model.py", "fitting.py", "dataset.py", "evaluation.py")
PLOT_CODE = ("figure.py", "texts.py")
DEFAULT_CONFIG = Path(__file__).with_name("model.toml")


@dataclass(frozen=True)
class ModelConfig:
    """What `model.toml` holds. `window`, `horizon` and `minimum_sessions` count sessions; `interval` is a probability."""

    model: str
    window: int
    horizon: int
    interval: float
    channels: int
    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    seed: int
    folds: int
    test_share: float
    minimum_sessions: int

    @property
    def quantiles(self) -> tuple[float, float, float]:
        """The probabilities of the forecast's low, middle and high value."""
        return (1 - self.interval) / 2, 0.5, (1 + self.interval) / 2


def read_model_config(path: Path) -> ModelConfig:
    """The configuration in the file at `path`; raises ConfigurationError naming the key that is missing, unknown or wrong."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"the model's configuration {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the model's configuration {path} is no TOML: {error}") from None
    types = {field.name: str(field.type) for field in fields(ModelConfig)}
    if unknown := sorted(content.keys() - types.keys()):
        raise ConfigurationError(f"{path}: unknown {', '.join(unknown)}; it may hold {', '.join(types)}")
    if missing := sorted(types.keys() - content.keys()):
        raise ConfigurationError(f"{path}: {', '.join(missing)} is missing")
    for name, value in content.items():
        _check(f"{path}: {name}", name, types[name], value)
    return ModelConfig(**content)


def _check(where: str, name: str, type: str, value: Any) -> None:
    allowed: tuple[Any, ...] = {"str": (str,), "int": (int,), "float": (int, float)}[type]
    right: bool = isinstance(value, allowed) and not isinstance(value, bool)
    if not right:
        raise ConfigurationError(f"{where} is {value!r} and must be of type {type}")
    if type == "float" and not math.isfinite(value):
        raise ConfigurationError(f"{where} is {value!r} and must be a finite number")
    if name == "weight_decay" and value < 0:
        raise ConfigurationError(f"{where} is {value!r} and must not be less than 0")
    if type != "str" and name not in ("seed", "weight_decay") and not value > 0:
        raise ConfigurationError(f"{where} is {value!r} and must be greater than 0")
    if name in ("interval", "test_share") and not value < 1:
        raise ConfigurationError(f"{where} is {value!r} and must be less than 1")


def _code(names: tuple[str, ...]) -> list[str]:
    return [digest(Path(__file__).with_name(name).read_bytes()) for name in names]


@dataclass(frozen=True)
class TrainingConfig:
    """The model's configuration, and the years of history before the session that it sees (None: all that there are)."""

    configuration: ModelConfig
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
