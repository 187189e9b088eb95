"""Reads the source's files: a year of prices, a feed. Over HTTP, from a folder or from a bucket."""

from __future__ import annotations

import string
import time

from step_contract.exit_codes import ConfigurationWrong, PassingFault, SourceNotReady
from step_contract.store import Store

PRICES_URL = (
    "https://raw.githubusercontent.com/FinanceData/fdr_krx_data_cache/refs/heads/master/data/index/year_{symbol}/{year}.csv"
)
SIZE_LIMIT = 8 * 2**20  # bytes; a year of an index has 26 kB, a feed some 100 kB
TIME_LIMIT = 60.0  # seconds for one file, from the connection to the last byte


def checked_template(template: str) -> str:
    """`template` itself if it is a URL with {year} and no other field than {symbol}; raises ConfigurationWrong otherwise."""
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError:
        fields = set()
    if "year" not in fields or fields - {"year", "symbol"} or "://" not in template:
        raise ConfigurationWrong(
            f"the prices' URL {template!r} must be a URL with {{year}} and, where symbols differ, {{symbol}} in it: "
            "file:///mirror/year_{symbol}/{year}.csv"
        )
    return template


def year_urls(template: str, symbol: str, year: int) -> list[str]:
    """Where the file of a year may lie: with the symbol in lower case, as the KRX cache names its folders, or as it is."""
    return list(dict.fromkeys(template.format(symbol=name, year=year) for name in (symbol.lower(), symbol)))


def read_year(template: str, symbol: str, year: int) -> tuple[str, bytes | None]:
    """The URL and the content of the source's file for a year; None where the source has no such file.

    Raises SourceNotReady when the source is down or refuses, and PassingFault when it throttles.
    """
    urls = year_urls(template, symbol, year)
    for url in urls:
        if (data := read(url)) is not None:
            return url, data
    return urls[0], None


def read(url: str) -> bytes | None:
    """The content of the file at `url`, or None where there is none; raises as `read_year` does."""
    scheme = url.partition("://")[0]
    if scheme in ("http", "https"):
        return _read_http(url)
    folder, _, name = url.rpartition("/")
    data = Store(folder).read(name)
    if data is not None and len(data) > SIZE_LIMIT:
        raise SourceNotReady(f"{url} has {len(data)} bytes, more than the {SIZE_LIMIT} that can be right")
    return data


def _read_http(url: str) -> bytes | None:
    import httpx

    started, data = time.monotonic(), bytearray()
    try:
        with httpx.stream("GET", url, timeout=15, follow_redirects=True) as answer:
            if answer.status_code in (404, 410):
                return None
            if answer.status_code == 429:
                raise PassingFault(f"{url}: throttled (429); Retry-After {answer.headers.get('retry-after', 'not given')}")
            if answer.status_code != 200:
                raise SourceNotReady(f"{url}: the source answers {answer.status_code} {answer.reason_phrase}")
            for chunk in answer.iter_bytes():
                data += chunk
                if len(data) > SIZE_LIMIT:
                    raise SourceNotReady(f"{url} has more than {SIZE_LIMIT} bytes, which cannot be right")
                if time.monotonic() - started > TIME_LIMIT:
                    raise SourceNotReady(f"{url}: still sending after {TIME_LIMIT:.0f} s")
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ConfigurationWrong(f"{url} is no URL that can be read: {error}") from error
    except httpx.HTTPError as error:
        raise SourceNotReady(f"{url}: {error or type(error).__name__}; look at the source or at the way out") from error
    return bytes(data)
