"""Download a file over HTTP: with retries, a server's rate limit, limits of time and size, no redirect from https to http.

Proxies and certificates are those of the environment (HTTPS_PROXY, SSL_CERT_FILE, …); the User-Agent is that of httpx.
"""

from __future__ import annotations

import logging
import time
from email.utils import parsedate_to_datetime
from functools import cache
from urllib.parse import urlsplit

import httpx
import tenacity
from step_contract.errors import ConfigurationError, SourceUnavailableError, StepError, TransientError
from step_contract.lineage.sources import redact_url

from collector.time_limit import time_limit

TOTAL_TIMEOUT = 60.0  # seconds for one file, including all attempts and the delays between them
IDLE_TIMEOUT = 15.0  # seconds without a byte
MAX_ATTEMPTS = 3  # MAX_ATTEMPTS * IDLE_TIMEOUT must stay below TOTAL_TIMEOUT, or the last attempts never start
MAX_REDIRECTS = 5
# These log responses, and a server may repeat the header Authorization in its response.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class _RetryableError(Exception):
    """A failure that another attempt may repair.

    Attributes:
        error: the error to raise after the last attempt.
        delay: seconds before the next attempt, if the server specified them.
    """

    def __init__(self, error: StepError, delay: float | None = None) -> None:
        self.error, self.delay = error, delay


class _RetryAfterOrBackoff(tenacity.wait.wait_base):
    """Wait as long as the server's Retry-After specifies, otherwise with exponential backoff."""

    _backoff = tenacity.wait_random_exponential(multiplier=0.5, max=5)

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        exception = retry_state.outcome.exception() if retry_state.outcome else None
        delay = exception.delay if isinstance(exception, _RetryableError) else None
        return self._backoff(retry_state) if delay is None else delay


def download(url: str, max_bytes: int, timeout: float = TOTAL_TIMEOUT, authorization: str | None = None) -> bytes | None:
    """Return the content of the http or https URL, or None if the server has no such file. Main thread only.

    Args:
        url: the file's URL; redirects are followed.
        max_bytes: the largest size to accept.
        timeout: seconds, including all attempts and the delays between them.
        authorization: the value of the header Authorization, for the URL's own server only.

    Raises:
        SourceUnavailableError: the server is down, refuses, stalls, or sends too much or incomplete content.
        TransientError: the server throttles for longer than `timeout`.
        ConfigurationError: the URL, or a setting of the proxy or of certificates, is invalid.
    """
    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_RetryableError),
        stop=tenacity.stop_any(tenacity.stop_after_attempt(MAX_ATTEMPTS), tenacity.stop_before_delay(timeout)),
        wait=_RetryAfterOrBackoff(),
        reraise=True,
    )
    timed_out = SourceUnavailableError(
        f"{redact_url(url)}: the download did not complete within {timeout:.0f} s; check the source or the network"
    )
    try:
        # IDLE_TIMEOUT does not limit a server that sends single bytes, of headers or content, just often enough.
        with time_limit(timeout, timed_out):
            return attempts(_follow_redirects, url, max_bytes, authorization)
    except _RetryableError as retryable:
        raise retryable.error from retryable


def _follow_redirects(url: str, max_bytes: int, authorization: str | None) -> bytes | None:
    current, redirects, shown = url, 0, redact_url(url)
    while True:
        try:
            own_server = not redirects or urlsplit(current)[:2] == urlsplit(url)[:2]
            response = _get(current, max_bytes, authorization if own_server else None)
        except ConfigurationError as error:
            if redirects:
                raise SourceUnavailableError(
                    f"{shown} redirects to an invalid URL, {redact_url(current)[:200]}; check the source"
                ) from error
            raise
        if not isinstance(response, httpx.URL):
            return response
        redirects += 1
        if response.scheme not in (urlsplit(current).scheme, "https"):
            raise SourceUnavailableError(
                f"{redact_url(current)} redirects to another scheme, {redact_url(str(response))[:200]}; check the source"
            )
        if redirects > MAX_REDIRECTS:
            raise SourceUnavailableError(
                f"{shown} redirects more than {MAX_REDIRECTS} times, last to {redact_url(str(response))[:200]}; check "
                "the source"
            )
        current = str(response)


@cache
def _client() -> httpx.Client:
    # Compressed content can be a decompression bomb, and its truncation can go unnoticed.
    try:
        return httpx.Client(headers={"Accept-Encoding": "identity"})
    except (ValueError, ImportError, OSError) as error:
        advice = "check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY and SSL_CERT_FILE"
        raise ConfigurationError(f"cannot create the HTTP client: {error}; {advice}") from error


def _get(url: str, max_bytes: int, authorization: str | None) -> bytes | httpx.URL | None:
    """Return the content, the URL of a redirect, or None if the server has no such file."""
    data, shown = bytearray(), redact_url(url)  # as messages name it: they get into logs and notifications
    headers = {"Authorization": authorization} if authorization else {}
    try:
        with _client().stream("GET", url, timeout=IDLE_TIMEOUT, headers=headers) as response:
            if response.status_code in (404, 410):
                return None
            if response.has_redirect_location:
                return response.url.join(response.headers["location"])
            if response.status_code == 429:
                header = response.headers.get("retry-after", "")
                throttled = TransientError(f"{shown}: throttled (429), Retry-After {header[:60] or 'not sent'}")
                raise _RetryableError(throttled, parse_retry_after(header))
            if response.status_code != 200:
                error = SourceUnavailableError(
                    f"{shown}: HTTP {response.status_code} {response.reason_phrase[:60]}; check the source"
                )
                raise _RetryableError(error) if response.status_code >= 500 else error
            if (encoding := response.headers.get("content-encoding", "").lower()) not in ("", "identity"):
                raise SourceUnavailableError(
                    f"{shown}: Content-Encoding {encoding[:60]!r}, although identity was requested; check the source"
                )
            for chunk in response.iter_raw():
                data += chunk
                if len(data) > max_bytes:
                    raise SourceUnavailableError(f"{shown} has more than {max_bytes} bytes; check the file at the source")
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
        raise ConfigurationError(f"invalid URL {shown}: {error}") from error
    except httpx.HTTPError as error:
        failed = SourceUnavailableError(f"{shown}: {error or type(error).__name__}; check the source or the network")
        raise _RetryableError(failed) from error
    return bytes(data)


def parse_retry_after(header: str) -> float | None:
    """Return the seconds that a Retry-After header specifies (RFC 9110, 10.2.3); None if it is invalid."""
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
