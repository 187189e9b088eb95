"""What a step's templates see in the triggerer."""

from __future__ import annotations

from typing import Any


class SingleXComs:
    """A task instance for templates. Without `map_indexes` it pulls the XCom of an unmapped task: all of a mapped one's are a
    request that Airflow 3.3.2's triggerer does not know, and never answers."""

    def __init__(self, this: Any) -> None:
        self._this = this

    def __getattr__(self, name: str) -> Any:
        return getattr(self._this, name)

    def xcom_pull(self, *arguments: Any, map_indexes: Any = -1, **more: Any) -> Any:
        """As the task instance's own."""
        return self._this.xcom_pull(*arguments, map_indexes=map_indexes, **more)
