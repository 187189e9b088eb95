"""Lint helm/namespace-policies with the values of every environment; skipped if helm is not installed."""

from __future__ import annotations

import shutil
import sys

from devtools.commands import INSTALL_URLS, ToolError, print_error
from devtools.helm_charts import lint, list_environments


def main() -> int:
    """Lint the chart for every environment; return the exit code."""
    if not shutil.which("helm"):
        print(f"skipped helm lint: helm is not on the PATH; install it ({INSTALL_URLS['helm']}), then run make lint")
        return 0
    try:
        for environment in list_environments():
            lint(environment)
    except ToolError as error:
        return print_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
