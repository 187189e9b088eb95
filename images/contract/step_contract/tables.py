"""The tables that one step writes and another reads. A change of columns is a new schema version."""

from __future__ import annotations

PRICES_FILE = "prices.parquet"
PRICES_VERSION = 1
# date: the session; open, high, low, close: index points; change: close over the previous close, less one;
# volume: shares; amount and market_cap: KRW. From change on, null where the source has none.
PRICES_COLUMNS = ("date", "open", "high", "low", "close", "change", "volume", "amount", "market_cap")

HEADLINES_FILE = "headlines.parquet"
HEADLINES_VERSION = 1
# published: UTC, microseconds; feed: the feed's name in the configuration.
HEADLINES_COLUMNS = ("published", "feed", "title", "link")

MODEL_FILE = "model.safetensors"
METRICS_FILE = "metrics.json"
FORECAST_FILE = "forecast.json"
# forecast.json: low, middle and high of each horizon as log return and in index points, from last_close on last_session;
# out_of_sample: what the validation's last folds have forecast in the same form. metrics.json: evaluate.Evaluation.
MODEL_VERSION = 2

PLOT_FILE = "forecast.png"
PLOT_VERSION = 1
