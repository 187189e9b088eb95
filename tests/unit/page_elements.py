"""The elements of an HTML page, for tests of what a page contains."""

from __future__ import annotations

from html.parser import HTMLParser


class PageElements(HTMLParser):
    """The elements of a page in their order, each with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
