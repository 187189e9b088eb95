"""The parts of Airflow's cron timetable that it keeps private, under public names."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, cast

from airflow.timetables.trigger import CronTriggerTimetable
from airflow.utils.types import DagRunType

if TYPE_CHECKING:
    from pendulum import DateTime, FixedTimezone, Timezone

__all__ = ["CronTimetable", "DagRunType"]


class CronTimetable(CronTriggerTimetable):
    """A CronTriggerTimetable whose time zone, interval and schedule a subclass can use.

    Relies on `CronMixin._timezone`, `_get_next` and `_align_to_next`, and on `_TriggerTimetable._interval`. If one of them is
    renamed, rename it here; if they are removed, compute the schedule from `serialize()`, which has expression, time zone and
    interval.
    """

    @property
    def time_zone(self) -> Timezone | FixedTimezone:
        """The time zone of the cron expression."""
        return self._timezone

    @property
    def interval(self) -> timedelta:
        """The length of a run's data interval."""
        return cast("timedelta", self._interval)

    def get_next(self, current: DateTime) -> DateTime:
        """Return the first scheduled time after `current`."""
        return self._get_next(current)

    def align_to_next(self, current: DateTime) -> DateTime:
        """Return the first scheduled time at or after `current`."""
        return self._align_to_next(current)
