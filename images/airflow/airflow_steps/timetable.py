"""When a day runs, and what its run is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.timetables.trigger import CronTriggerTimetable

if TYPE_CHECKING:
    from airflow.timetables.base import DataInterval
    from airflow.utils.types import DagRunType
    from pendulum import DateTime


class SessionTimetable(CronTriggerTimetable):
    """Airflow's CronTriggerTimetable, whose runs are called by their session: `session__2026-03-20`.

    A session is the logical date's day in the timetable's time zone. A run that is started without a logical date is about
    no session and is called as Airflow calls it.
    """

    def generate_run_id(
        self, *, run_type: DagRunType, run_after: DateTime, data_interval: DataInterval | None, **extra: Any
    ) -> str:
        """The run's name."""
        if data_interval is None:
            return super().generate_run_id(run_type=run_type, run_after=run_after, data_interval=data_interval, **extra)
        return f"session__{data_interval.end.in_timezone(self._timezone).to_date_string()}"
