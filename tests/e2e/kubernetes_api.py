"""Requests to the Kubernetes API through one `kubectl proxy`: a kubectl process for each takes a quarter of a CPU second."""

from __future__ import annotations

import atexit
import functools
import json
import subprocess
from collections.abc import Mapping
from typing import Any
from urllib.request import Request, urlopen


@functools.cache
def start_proxy(context: str) -> str:
    """Start a proxy that runs until the process ends; return its URL."""
    process = subprocess.Popen(
        ["kubectl", "--context", context, "proxy", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    atexit.register(process.terminate)
    line = process.stdout.readline() if process.stdout else ""
    assert "127.0.0.1:" in line, f"kubectl proxy: {line}"
    return f"http://127.0.0.1:{line.rpartition(':')[2].strip()}"


def request(context: str, path: str, body: Mapping[str, Any] | None = None, user: str | None = None) -> Any:
    """Get `path`, or post `body` to it, as the administrator or in the name of `user`; return the response."""
    headers = {"Content-Type": "application/json"} | ({"Impersonate-User": user} if user else {})
    data = json.dumps(body).encode() if body is not None else None
    with urlopen(Request(f"{start_proxy(context)}{path}", data, headers), timeout=30) as response:  # noqa: S310 always HTTP
        return json.load(response)
