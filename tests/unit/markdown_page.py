"""What tests read from a page of the documentation."""

from __future__ import annotations

import re
from pathlib import Path


def list_anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site derive them."""
    prose = re.sub(r"(?s)```.*?```", "", page.read_text())
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
