"""Redaction (masking) of messages: no secrets, nothing that looks like one, and no traceback."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

TRACEBACK = "Traceback (most recent call last)"
SECRET_VARIABLE = re.compile(r"SECRET|PASSWORD|TOKEN|CONN_|_KEY")
SENSITIVE_NAME = r"[\w-]*(?:password|passwd|secret|token|signature|api_?key|access_?key|credential|cookie|authorization)[\w-]*"
# Passwords and tokens in a URL, a header, an option or a dictionary, whatever their source.
SECRET_PATTERNS = (
    (re.compile(r"(\w://)[^\s/?#]*@|(\w://[^\s:@]*:)\S*@"), lambda match: f"{match[1] or match[2]}***@"),
    (re.compile(r"\bxox[a-z]-[\w-]+|\bxapp-[\w-]+"), lambda match: "***"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), lambda match: "***"),
    (re.compile(r"(?i)\b((?:bearer|basic)\s+)[^\s'\",;]{4,}"), lambda match: f"{match[1]}***"),
    (
        re.compile(rf"(?i)(['\"]?\b{SENSITIVE_NAME}\b['\"]?\s*[=:]\s*)(?!bearer |basic )('[^']*'|\"[^\"]*\"|[^\s&;}}\]]+)"),
        lambda match: f"{match[1]}***",
    ),
)


def redact_text(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return `text` with `***` for secrets and only the last line of a traceback.

    Secrets are the values of variables such as AWS_SECRET_ACCESS_KEY in `environment`, and whatever looks like one.
    """
    if TRACEBACK in text:
        before, _, traceback = text.partition(TRACEBACK)
        last_line = next((line for line in reversed(traceback.splitlines()) if line.strip(" :")), "")
        text = f"{before.strip()} {last_line.strip()}".strip()
    for name, value in environment.items():
        if SECRET_VARIABLE.search(name) and len(value) >= 8:
            text = text.replace(value, "***")
    for pattern, replacement in SECRET_PATTERNS:
        text = pattern.sub(replacement, text)
    return text
