"""The files that one step writes and another reads. Changing a file's columns requires a new schema version."""

from __future__ import annotations

import re
from datetime import date
from zoneinfo import ZoneInfo

# A session is a date in the exchange's time zone.
MARKET_TIME_ZONE = ZoneInfo("Asia/Seoul")

PRICES_FILE = "prices.parquet"
PRICES_VERSION = 1
# date: the session; open, high, low, close: index points; change: close over the previous close, less one;
# volume: shares; amount and market_cap: KRW. From `change` on, null where the source has no value.
PRICES_COLUMNS = ("date", "open", "high", "low", "close", "change", "volume", "amount", "market_cap")

# The source rounds closes to two decimals (index points) and changes to four.
CLOSE_STEP, CHANGE_STEP = 0.01, 0.0001

HEADLINES_FILE = "headlines.parquet"
HEADLINES_VERSION = 1
# published: UTC, microseconds; feed: the feed's name in the configuration.
HEADLINES_COLUMNS = ("published", "feed", "title", "link")

MODEL_FILE = "model.safetensors"
METRICS_FILE = "metrics.json"
FORECAST_FILE = "forecast.json"
# forecast.json: low, middle and high of each horizon as log return and in index points, from last_close on last_session;
# out_of_sample: what the last validation folds forecast, in the same form. metrics.json: trainer.evaluation.Evaluation.
MODEL_VERSION = 2

PLOT_FILE = "forecast.png"
PLOT_VERSION = 1

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def parse_iso_date(text: str) -> date:
    """Return the date written as YYYY-MM-DD. Raises ValueError for anything else, other forms of ISO 8601 included."""
    return date.fromisoformat(text if _DATE.fullmatch(text) else "")
