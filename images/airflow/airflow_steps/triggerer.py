"""Airflow's triggerer, with a cost for each step that does not depend on how many steps its DAG has.

    python -m airflow_steps.triggerer        # instead of `airflow triggerer`, with the same options

Airflow 3.3.2 reads, deserializes and sends the whole serialized DAG with each trigger that starts a task: of a DAG with 1,000
steps, 30 MB for each. Here a trigger gets the DAG with its own task only. Triggers start in small groups, so that neither
process is busy for longer than a heartbeat, and a step's start and end are passed on at once instead of once a second.
docs/decisions/0023-own-triggerer-process.md has the reasons and the figures; `airflow_internals.triggerer` has the processes.
"""

from __future__ import annotations

import sys

# Imported before the first trigger starts: importing it in the event loop would block that for seconds.
import airflow_steps.trigger  # noqa: F401
from airflow_steps.airflow_internals import triggerer


def main(arguments: list[str]) -> None:
    """Run `airflow triggerer` with the project's processes."""
    triggerer.install()
    triggerer.run_command(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
