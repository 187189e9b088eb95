"""The configuration of the feeds that headlines are collected from."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from step_contract.errors import ConfigurationError

VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
SCHEMES = ("http", "https", "file", "s3")


@dataclass(frozen=True)
class Feed:
    """A feed: a unique name, its URL, and the environment variable whose value is sent as the header Authorization, if any.

    A field that changes which headlines are kept must be part of the digest in `fetch_headlines.commit_headlines`.
    """

    name: str
    url: str
    authorization: str | None = None


def get_authorization(feed: Feed, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the value of the feed's header Authorization, or None if it needs none.

    Raises ConfigurationError if the variable is not set or its value is no header's. The message does not contain the value.
    """
    if feed.authorization is None:
        return None
    value = environment.get(feed.authorization, "").strip()
    if not (value and value.isascii() and value.isprintable()):
        problem = "must be one line of ASCII text" if value else "is not set"
        raise ConfigurationError(
            f"feed {feed.name}: the environment variable {feed.authorization} {problem}; in a cluster it comes from a secret "
            "that the setting collector_secrets names"
        )
    return value


def read_feeds(path: Path) -> list[Feed]:
    """Return the feeds listed in the TOML file at `path`. Raises ConfigurationError if it is missing or invalid."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        feeds = [(feed["name"], feed["url"], feed.get("authorization")) for feed in content["feed"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigurationError(
            f"cannot read the feeds file {path}: {error!r}; it must list each [[feed]] with name and url"
        ) from None
    for name, url, authorization in feeds:
        if not (isinstance(name, str) and isinstance(url, str) and name.strip() and url.strip()):
            raise ConfigurationError(f"the feeds file {path} has a feed {name!r} at {url!r}: name and url must be text")
        if "://" in url and url.partition("://")[0] not in SCHEMES:
            raise ConfigurationError(f"the feeds file {path} has an invalid URL {url}: use {', '.join(SCHEMES)} or a file name")
        if authorization is not None and not (
            VARIABLE.fullmatch(str(authorization)) and url.startswith(("http://", "https://"))
        ):
            # Without the text, which may be the secret itself.
            raise ConfigurationError(
                f"the feeds file {path} has an invalid authorization of the feed {name!r}: it must be the name of an "
                "environment variable, not its value, and the URL must be http or https"
            )
    if len({name for name, _, _ in feeds}) != len(feeds) or not feeds:
        raise ConfigurationError(f"the feeds file {path} must list at least one feed, and each name once")
    folder = path.resolve().parent
    return [Feed(name, url if "://" in url else f"file://{folder / url}", authorization) for name, url, authorization in feeds]
