"""The source's files: the URL of a year's prices, and reading a file over HTTP, from a folder or from a bucket."""

from __future__ import annotations

import string
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from step_contract.errors import ConfigurationError, SourceUnavailableError, StepError
from step_contract.lineage.sources import Source, redact_url, source_of_file
from step_contract.store import Store

PRICES_URL = (
    "https://raw.githubusercontent.com/FinanceData/fdr_krx_data_cache/refs/heads/master/data/index/year_{symbol}/{year}.csv"
)
SOURCE_ROLE = "source"  # of a price file in a manifest
MAX_BYTES = 8 * 2**20  # a year of an index has 26 kB, a feed about 100 kB


def validate_prices_url(template: str) -> str:
    """Return `template` if it is a URL with the field {year} and, optionally, {symbol}. Raises ConfigurationError otherwise."""
    try:
        fields = [
            (name, form, conversion) for _, name, form, conversion in string.Formatter().parse(template) if name is not None
        ]
    except ValueError:
        fields = []
    names = {name for name, _, _ in fields}
    if (
        any(form or conversion for _, form, conversion in fields)
        or "year" not in names
        or names - {"year", "symbol"}
        or "://" not in template
    ):
        raise ConfigurationError(
            f"invalid URL of the prices {template!r}: use a URL with {{year}} and, if it depends on the symbol, {{symbol}}, "
            "such as file:///mirror/year_{symbol}/{year}.csv"
        )
    return template


def make_source(url: str, data: bytes) -> Source:
    """Return one of the source's price files, as the manifest of what was made from it names it."""
    return source_of_file(SOURCE_ROLE, url, data)


def year_file_urls(template: str, symbol: str, year: int) -> list[str]:
    """Return the possible URLs of a year's file: the symbol in lower case, as the KRX cache names its folders, or unchanged."""
    return list(dict.fromkeys(template.format(symbol=name, year=year) for name in (symbol.lower(), symbol)))


def read_year_file(template: str, symbol: str, year: int) -> tuple[str, bytes | None]:
    """Return the URL and the content of the source's price file of `year`; the content is None if there is no file.

    The URL is for messages and manifests: without what may be a credential. Raises as `read_url` does.
    """
    urls = year_file_urls(template, symbol, year)
    for url in urls:
        if (data := read_url(url)) is not None:
            return redact_url(url), data
    return redact_url(urls[0]), None


@dataclass
class _Reads:
    """What was read while `remember_reads` is active: the content, or the error, by URL and authorization."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    results: dict[tuple[str, str | None], bytes | StepError | None] = field(default_factory=dict)


_active: list[_Reads] = []


@contextmanager
def remember_reads() -> Iterator[None]:
    """Read each URL once while the block runs, for a step that makes many sessions; an error is remembered too."""
    _active.append(_Reads())
    try:
        yield
    finally:
        _active.pop()


def read_url(url: str, authorization: str | None = None) -> bytes | None:
    """Return the content of the URL, as `_request_url` does; the remembered one while `remember_reads` is active."""
    if not _active:
        return _request_url(url, authorization)
    reads, key = _active[-1], (url, authorization)
    with reads.lock:
        if key not in reads.results:
            try:
                reads.results[key] = _request_url(url, authorization)
            except StepError as error:
                reads.results[key] = error
        result = reads.results[key]
    if isinstance(result, StepError):
        raise result
    return result


def _request_url(url: str, authorization: str | None) -> bytes | None:
    """Return the content of the http, https, file or s3 URL, or None if it does not exist.

    `authorization` is the value of an http request's header Authorization.

    Raises:
        SourceUnavailableError: the source is down, refuses, or sends more than MAX_BYTES.
        TransientError: the source or the object store throttles.
        ConfigurationError: the URL is invalid.
    """
    scheme = url.partition("://")[0]
    if scheme in ("http", "https"):
        from collector.http_client import download

        return download(url, MAX_BYTES, authorization=authorization)
    folder, _, name = url.rpartition("/")
    data = Store(folder).read(name)
    if data is not None and len(data) > MAX_BYTES:
        raise SourceUnavailableError(f"{url} has {len(data)} bytes, more than {MAX_BYTES}; check the file at the source")
    return data
