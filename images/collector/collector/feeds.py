"""Which feeds there are."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from step_contract.errors import ConfigurationError

SCHEMES = ("http", "https", "file", "s3")


@dataclass(frozen=True)
class Feed:
    """A feed's name and its URL."""

    name: str
    url: str


def read_feeds(path: Path) -> list[Feed]:
    """The feeds that the configuration file at `path` names; raises ConfigurationError when it is missing or wrong."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        listed = [(feed["name"], feed["url"]) for feed in content["feed"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigurationError(f"the feeds' file {path} is wrong: {error!r}; it lists [[feed]] with name and url") from None
    for name, url in listed:
        if not (isinstance(name, str) and isinstance(url, str) and name.strip() and url.strip()):
            raise ConfigurationError(f"the feeds' file {path} has a feed {name!r} at {url!r}: both must be text")
        if "://" in url and url.partition("://")[0] not in SCHEMES:
            raise ConfigurationError(f"the feeds' file {path} has a feed at {url}: it must begin with one of {SCHEMES}")
    if len({name for name, _ in listed}) != len(listed) or not listed:
        raise ConfigurationError(f"the feeds' file {path} must name at least one feed, and each by a name of its own")
    return [Feed(name, url if "://" in url else f"file://{path.resolve().parent / url}") for name, url in listed]
