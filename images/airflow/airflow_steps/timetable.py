"""The timetables: of a DAG that runs once per session, and of one that collects past sessions by the month."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.timetables.base import DagRunInfo, DataInterval, Timetable

from airflow_steps.airflow_internals.timetables import CronTimetable, DagRunType

if TYPE_CHECKING:
    from airflow.timetables.base import TimeRestriction
    from pendulum import DateTime

# Only these runs advance the schedule; any other is triggered by a person, another DAG or an asset.
AUTOMATED = (DagRunType.SCHEDULED, DagRunType.BACKFILL_JOB)
LOGICAL_DATE_OFFSET = timedelta(seconds=1)
CATCHUP_WINDOW = timedelta(days=7)


class SessionTimetable(CronTimetable):
    """A CronTriggerTimetable whose scheduled runs are always created, whatever runs are triggered manually.

    A session is the logical date's day in the timetable's time zone. Three things differ from Airflow's timetable; the reasons
    are in docs/decisions/0021-scheduled-runs-always-come.md.

    - A scheduled run is named after the local time of its schedule, such as `scheduled__2026-03-20T18:00:00+09:00`. Airflow
      rejects that prefix in the ids of manual runs; a DAG rejects it for other DAGs and assets by `allowed_run_types`.
    - If a manual run has the logical date of the schedule, the scheduled run gets the next free second.
    - Without catchup, runs that could not start are still created if they are at most a week old.
    """

    def generate_run_id(
        self, *, run_type: DagRunType, run_after: DateTime, data_interval: DataInterval | None, **extra: Any
    ) -> str:
        """Return the run id: for a scheduled run with the local time of its schedule, otherwise Airflow's own."""
        if run_type in AUTOMATED:
            run_after = run_after.in_timezone(self.time_zone)
        return super().generate_run_id(run_type=run_type, run_after=run_after, data_interval=data_interval, **extra)

    def run_info_from_dag_run(self, *, dag_run: Any) -> DagRunInfo:
        """Return what the next run is computed from; without a data interval if `dag_run` does not advance the schedule.

        The interval follows from the logical date: a run that a backfill took over may have one that a person set.
        """
        info = super().run_info_from_dag_run(dag_run=dag_run)
        if dag_run.logical_date is None:
            return info
        start = pendulum.instance(dag_run.logical_date)
        if dag_run.run_type in AUTOMATED:
            return info._replace(data_interval=DataInterval(start, start + self.interval))
        return info._replace(run_after=start, data_interval=None)

    def next_dagrun_info_v2(self, *, last_dagrun_info: DagRunInfo | None, restriction: TimeRestriction) -> DagRunInfo | None:
        """Return the next scheduled run; a second after `last_dagrun_info` if that is of a manual run."""
        if last_dagrun_info is None:
            return super().next_dagrun_info_v2(last_dagrun_info=None, restriction=restriction)
        if last_dagrun_info.data_interval is None:
            end = last_dagrun_info.run_after + LOGICAL_DATE_OFFSET + self.interval
        elif restriction.catchup:
            return super().next_dagrun_info_v2(last_dagrun_info=last_dagrun_info, restriction=restriction)
        else:
            earliest = [pendulum.now("UTC") - CATCHUP_WINDOW, *filter(None, [restriction.earliest])]
            end = max(self.get_next(last_dagrun_info.data_interval.end), *map(self.align_to_next, earliest))
        if restriction.latest is not None and restriction.latest < end:
            return None
        return DagRunInfo.interval(pendulum.instance(end - self.interval), end)


class MonthTimetable(Timetable):
    """Schedules nothing; a backfill of its DAG has a run for each calendar month that the range touches.

    The logical date is the first of the month, also if the range begins later: so a month has one run, whatever ranges are
    backfilled. The DAG's params limit the days. The data interval of the current month ends now, as Airflow leaves out runs
    whose interval is not over.
    """

    description = "By the month, in a backfill only"

    @property
    def summary(self) -> str:
        """What the UI shows as the schedule."""
        return "backfill by month"

    def infer_manual_data_interval(self, *, run_after: DateTime) -> DataInterval:
        """Return an interval without length: the params have the range of a manual run."""
        return DataInterval.exact(run_after)

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """Return the next month of a backfill, which asks with catchup; the scheduler, which does not, gets None."""
        if not restriction.catchup or restriction.earliest is None:
            return None
        if last_automated_data_interval is None:
            start = restriction.earliest.in_timezone("UTC").start_of("month")
        else:
            start = pendulum.instance(last_automated_data_interval.start).add(months=1)
        end = min(start.add(months=1), pendulum.now("UTC").subtract(seconds=1))
        if start >= end or (restriction.latest is not None and start > restriction.latest):
            return None
        # Airflow names the run after `run_after`.
        return DagRunInfo(run_after=start, data_interval=DataInterval(start, end))
