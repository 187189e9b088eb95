"""An Airflow DAG: market_daily with two indexes. The sample has only the first: the days of the second are suspect."""

from __future__ import annotations

import os
from pathlib import Path

FILE = Path(__file__).with_name("market_daily.py")
SETTINGS = {"SYMBOLS": "KS11,KX99", "ARTIFACTS": "s3://market/artifacts/drills/indexes"}

inherited = dict(os.environ)
os.environ.update(SETTINGS)
try:
    exec(compile(FILE.read_text().replace('"market_daily"', '"drill_indexes"'), FILE, "exec"))  # noqa: S102
finally:
    for name in SETTINGS:
        os.environ.pop(name)
        os.environ.update({name: inherited[name]} if name in inherited else {})
