"""Reads the source's files: a year of prices, a feed. Over HTTP, from a folder or from a bucket."""

from __future__ import annotations

import string

from step_contract.errors import ConfigurationError, SourceUnavailableError
from step_contract.store import Store

PRICES_URL = (
    "https://raw.githubusercontent.com/FinanceData/fdr_krx_data_cache/refs/heads/master/data/index/year_{symbol}/{year}.csv"
)
MAX_BYTES = 8 * 2**20  # bytes; a year of an index has 26 kB, a feed some 100 kB


def validate_prices_url(template: str) -> str:
    """`template` itself if it is a URL with {year} and no other field than {symbol}; raises ConfigurationError otherwise."""
    try:
        found = [
            (name, form, conversion) for _, name, form, conversion in string.Formatter().parse(template) if name is not None
        ]
    except ValueError:
        found = []
    fields = {name for name, _, _ in found}
    if (
        any(form or conversion for _, form, conversion in found)
        or "year" not in fields
        or fields - {"year", "symbol"}
        or "://" not in template
    ):
        raise ConfigurationError(
            f"the prices' URL {template!r} must be a URL with {{year}} and, where symbols differ, {{symbol}} in it: "
            "file:///mirror/year_{symbol}/{year}.csv"
        )
    return template


def year_file_urls(template: str, symbol: str, year: int) -> list[str]:
    """Where the file of a year may lie: with the symbol in lower case, as the KRX cache names its folders, or as it is."""
    return list(dict.fromkeys(template.format(symbol=name, year=year) for name in (symbol.lower(), symbol)))


def read_year_file(template: str, symbol: str, year: int) -> tuple[str, bytes | None]:
    """The URL and the content of the source's file for a year; None where the source has no such file.

    Raises SourceUnavailableError when the source is down or refuses, and TransientError when it throttles.
    """
    urls = year_file_urls(template, symbol, year)
    for url in urls:
        if (data := read_url(url)) is not None:
            return url, data
    return urls[0], None


def read_url(url: str) -> bytes | None:
    """The content of the file at `url`, or None where there is none; raises as `read_year` does."""
    scheme = url.partition("://")[0]
    if scheme in ("http", "https"):
        from collector.http_client import download

        return download(url, MAX_BYTES)
    folder, _, name = url.rpartition("/")
    data = Store(folder).read(name)
    if data is not None and len(data) > MAX_BYTES:
        raise SourceUnavailableError(f"{url} has {len(data)} bytes, more than the {MAX_BYTES} that can be right")
    return data
