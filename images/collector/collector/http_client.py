"""Downloads a file over HTTP: a few tries, within bounds of time and size, and never to a lesser scheme."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from functools import cache
from urllib.parse import urlsplit

import httpx
import tenacity
from step_contract.errors import ConfigurationError, SourceUnavailableError, StepError, TransientError

TOTAL_TIMEOUT = 60.0  # seconds for one file, all tries and waits together
IDLE_TIMEOUT = 15.0  # seconds without a byte
MAX_ATTEMPTS = 3
MAX_REDIRECTS = 5


class _RetryableError(Exception):
    """What another try may mend: the error that is raised when none is left, and after how many seconds to try, if told."""

    def __init__(self, error: StepError, wait: float | None = None) -> None:
        self.error, self.wait = error, wait


class _RetryAfterOrBackoff(tenacity.wait.wait_base):
    """As long as the server asks for, or else longer each time."""

    _usual = tenacity.wait_random_exponential(multiplier=0.5, max=5)

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        trouble = retry_state.outcome.exception() if retry_state.outcome else None
        asked = trouble.wait if isinstance(trouble, _RetryableError) else None
        return self._usual(retry_state) if asked is None else asked


def download(url: str, max_bytes: int, timeout: float = TOTAL_TIMEOUT) -> bytes | None:
    """The content of the file at `url`, or None where the server has none. For the main thread.

    Raises SourceUnavailableError when the server is down, refuses, stalls, sends too much or other than it said; TransientError when it
    throttles for longer than a step waits; ConfigurationError for what is no URL.
    """
    tries = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_RetryableError),
        stop=tenacity.stop_any(tenacity.stop_after_attempt(MAX_ATTEMPTS), tenacity.stop_before_delay(timeout)),
        wait=_RetryAfterOrBackoff(),
        reraise=True,
    )
    late = SourceUnavailableError(f"{url} was not there, whole, after {timeout:.0f} s; look at the source")
    try:
        # A server that sends a byte now and then, of its headers too, is never silent for long.
        with time_limit(timeout, late):
            return tries(_follow_redirects, url, max_bytes)
    except _RetryableError as trouble:
        raise trouble.error from trouble


def _follow_redirects(url: str, max_bytes: int) -> bytes | None:
    at, seen = url, 0
    while True:
        try:
            found = _get(at, max_bytes)
        except ConfigurationError as error:
            if seen:
                raise SourceUnavailableError(f"{url} sends to {at[:200]}, which is no address; look at the source") from error
            raise
        if not isinstance(found, httpx.URL):
            return found
        seen += 1
        if found.scheme not in (urlsplit(at).scheme, "https"):
            raise SourceUnavailableError(f"{at} sends to {str(found)[:200]}, which is another scheme; look at the source")
        if seen > MAX_REDIRECTS:
            raise SourceUnavailableError(f"{url} sends ever further, at last to {str(found)[:200]}; look at the source")
        at = str(found)


@cache
def _client() -> httpx.Client:
    # What is packed can be a bomb, and cut off without anyone noticing.
    try:
        return httpx.Client(headers={"Accept-Encoding": "identity"})
    except (ValueError, ImportError, OSError) as error:
        advice = "look at HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY and SSL_CERT_FILE"
        raise ConfigurationError(f"nothing can be downloaded: {error}; {advice}") from error


def _get(url: str, max_bytes: int) -> bytes | httpx.URL | None:
    data = bytearray()
    try:
        with _client().stream("GET", url, timeout=IDLE_TIMEOUT) as answer:
            if answer.status_code in (404, 410):
                return None
            if answer.has_redirect_location:
                return answer.url.join(answer.headers["location"])
            if answer.status_code == 429:
                asked = answer.headers.get("retry-after", "")
                text = f"{url}: throttled (429); Retry-After {asked[:60] or 'not given'}"
                raise _RetryableError(TransientError(text), parse_retry_after(asked))
            if answer.status_code != 200:
                error = SourceUnavailableError(f"{url}: the source answers {answer.status_code} {answer.reason_phrase[:60]}")
                raise _RetryableError(error) if answer.status_code >= 500 else error
            if (packed := answer.headers.get("content-encoding", "").lower()) not in ("", "identity"):
                raise SourceUnavailableError(
                    f"{url}: the source sends {packed[:60]!r}, and was asked not to; look at the source"
                )
            for chunk in answer.iter_raw():
                data += chunk
                if len(data) > max_bytes:
                    raise SourceUnavailableError(f"{url} has more than {max_bytes} bytes, which cannot be right")
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
        raise ConfigurationError(f"{url} is no URL that can be read: {error}") from error
    except httpx.HTTPError as error:
        told = SourceUnavailableError(f"{url}: {error or type(error).__name__}; look at the source or at the way out")
        raise _RetryableError(told) from error
    return bytes(data)


def parse_retry_after(asked: str) -> float | None:
    """The seconds that a Retry-After asks for (RFC 9110, 10.2.3); None where it is none."""
    if asked.isascii() and asked.isdigit():
        return float(asked)
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
