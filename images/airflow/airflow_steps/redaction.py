"""Text that may be shown: without what is, or looks like, a secret, and without the inside of a traceback."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

TRACE = "Traceback (most recent call last)"
SECRET_NAME = re.compile(r"SECRET|PASSWORD|TOKEN|CONN_|_KEY")
NAMED = r"[\w-]*(?:password|passwd|secret|token|signature|api_?key|access_?key|credential|cookie|authorization)[\w-]*"
# Wherever it comes from: a password or a token in an address, a header, an option, a dictionary.
SECRETS = (
    (re.compile(r"(\w://)[^\s/?#]*@|(\w://[^\s:@]*:)\S*@"), lambda found: f"{found[1] or found[2]}***@"),
    (re.compile(r"\bxox[a-z]-[\w-]+|\bxapp-[\w-]+"), lambda found: "***"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), lambda found: "***"),
    (re.compile(r"(?i)\b((?:bearer|basic)\s+)[^\s'\",;]{4,}"), lambda found: f"{found[1]}***"),
    (
        re.compile(rf"(?i)(['\"]?\b{NAMED}\b['\"]?\s*[=:]\s*)(?!bearer |basic )('[^']*'|\"[^\"]*\"|[^\s&;}}\]]+)"),
        lambda found: f"{found[1]}***",
    ),
)


def discreet(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """`text` without the values of the environment's secrets and what looks like one; of a traceback its last line alone."""
    if TRACE in text:
        before, _, trace = text.partition(TRACE)
        last = next((line for line in reversed(trace.splitlines()) if line.strip(" :")), "")
        text = f"{before.strip()} {last.strip()}".strip()
    for name, value in environment.items():
        if SECRET_NAME.search(name) and len(value) >= 8:
            text = text.replace(value, "***")
    for pattern, instead in SECRETS:
        text = pattern.sub(instead, text)
    return text
