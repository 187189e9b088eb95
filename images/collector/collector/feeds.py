"""The configuration of the feeds that headlines are collected from."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from step_contract.errors import ConfigurationError

SCHEMES = ("http", "https", "file", "s3")


@dataclass(frozen=True)
class Feed:
    """A feed: a unique name and its URL."""

    name: str
    url: str


def read_feeds(path: Path) -> list[Feed]:
    """Return the feeds listed in the TOML file at `path`. Raises ConfigurationError if it is missing or invalid."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        feeds = [(feed["name"], feed["url"]) for feed in content["feed"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigurationError(
            f"cannot read the feeds file {path}: {error!r}; it must list each [[feed]] with name and url"
        ) from None
    for name, url in feeds:
        if not (isinstance(name, str) and isinstance(url, str) and name.strip() and url.strip()):
            raise ConfigurationError(f"the feeds file {path} has a feed {name!r} at {url!r}: name and url must be text")
        if "://" in url and url.partition("://")[0] not in SCHEMES:
            raise ConfigurationError(f"the feeds file {path} has an invalid URL {url}: use {', '.join(SCHEMES)} or a file name")
    if len({name for name, _ in feeds}) != len(feeds) or not feeds:
        raise ConfigurationError(f"the feeds file {path} must list at least one feed, and each name once")
    return [Feed(name, url if "://" in url else f"file://{path.resolve().parent / url}") for name, url in feeds]
