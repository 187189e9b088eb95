"""Checks the chart of this repository with the values of each environment."""

import sys

from devtools.helm_charts import main

if __name__ == "__main__":
    sys.exit(main())
