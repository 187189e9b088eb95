"""The configuration of a model and of its training, and what identifies a plot.

The digest of a configuration is part of an artifact's path: a change gives another artifact beside the first.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from step_contract.errors import ConfigurationError
from step_contract.manifest import canonical, digest

# The modules whose code determines a model and a plot: their digests are part of the configuration's.
MODEL_CODE = ("model.py", "fitting.py", "dataset.py", "evaluation.py", "calibration.py", "scores.py")
PLOT_CODE = ("figure.py", "texts.py")
MAX_INTERVAL = 0.998  # calibration.MAX_SCORES / (MAX_SCORES + 1), rounded down
DEFAULT_CONFIG = Path(__file__).with_name("model.toml")


def interval_quantiles(interval: float) -> tuple[float, float, float]:
    """Return the probabilities of the low, middle and high value of a forecast with the nominal coverage `interval`."""
    return (1 - interval) / 2, 0.5, (1 + interval) / 2


@dataclass(frozen=True)
class ModelConfig:
    """The hyperparameters: the content of `model.toml`, which describes each key.

    `window`, `horizon` and `min_sessions` count sessions; `interval` is a probability, the nominal coverage.
    """

    model: str
    window: int
    horizon: int
    interval: float
    channels: int
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    seed: int
    folds: int
    test_share: float
    min_sessions: int

    @property
    def quantiles(self) -> tuple[float, float, float]:
        """The probabilities of the forecast's low, middle and high value."""
        return interval_quantiles(self.interval)


@dataclass(frozen=True)
class TrainingConfig:
    """The model's configuration and the history that it is trained on.

    Attributes:
        model: the hyperparameters.
        history_years: the years before the session; None means all.
        as_of: only revisions that were committed by then are read, to reproduce a past result; None means the latest ones.
    """

    model: ModelConfig
    history_years: int | None
    as_of: datetime | None = None

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that identify this configuration and the code that fits and evaluates a model."""
        content = [asdict(self.model), self.history_years, _code_digests(MODEL_CODE)]
        return digest(canonical(content + ([self.as_of.isoformat()] if self.as_of else [])))[:12]

    def first_date(self, session: date) -> date | None:
        """Return the first day of the history for a model of `session`, or None if it is not limited."""
        return subtract(session, timedelta(days=round(365.25 * self.history_years))) if self.history_years else None


def subtract(day: date, period: timedelta) -> date:
    """Return the day that is `period` before `day`, or 1 January of the year 1 if that is later."""
    return day - min(period, day - date.min)


def plot_digest(model: str, language: str, past_forecasts: str) -> str:
    """Return twelve hexadecimal digits that identify a plot's configuration.

    Args:
        model: the digest of the model's configuration.
        language: the language of the texts.
        past_forecasts: the digest of the past forecasts that are drawn.
    """
    return digest(canonical([model, _code_digests(PLOT_CODE), language, past_forecasts]))[:12]


def _code_digests(names: tuple[str, ...]) -> list[str]:
    return [digest(Path(__file__).with_name(name).read_bytes()) for name in names]


def read_model_config(path: Path) -> ModelConfig:
    """Return the configuration in the TOML file at `path`.

    Raises ConfigurationError naming the key that is missing, unknown or invalid.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read the model's configuration {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the model's configuration {path} is not valid TOML: {error}") from None
    types = {field.name: str(field.type) for field in fields(ModelConfig)}
    if unknown := sorted(content.keys() - types.keys()):
        raise ConfigurationError(f"{path}: unknown key {', '.join(unknown)}; known keys: {', '.join(types)}")
    if missing := sorted(types.keys() - content.keys()):
        raise ConfigurationError(f"{path}: missing key {', '.join(missing)}")
    for name, value in content.items():
        if problem := _find_problem(name, types[name], value):
            raise ConfigurationError(f"{path}: invalid {name} {value!r}: {problem}")
    return ModelConfig(**content)


def _find_problem(name: str, type: str, value: Any) -> str | None:
    """Return why `value` is invalid for the key `name`, or None if it is valid."""
    allowed: tuple[Any, ...] = {"str": (str,), "int": (int,), "float": (int, float)}[type]
    if not isinstance(value, allowed) or isinstance(value, bool):
        return f"must be of type {type}"
    if type == "float" and not math.isfinite(value):
        return "must be a finite number"
    if name == "weight_decay" and value < 0:
        return "must not be negative"
    if type != "str" and name not in ("seed", "weight_decay") and not value > 0:
        return "must be greater than 0"
    if name in ("interval", "test_share") and not value < 1:
        return "must be less than 1"
    if name == "interval" and value > MAX_INTERVAL:
        return f"must be at most {MAX_INTERVAL}, as there are too few outcomes to calibrate a higher one"
    return None
