"""The schedule of a DAG that runs once a session."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.timetables.base import DagRunInfo, DataInterval
from airflow.timetables.trigger import CronTriggerTimetable
from airflow.utils.types import DagRunType

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.timetables.base import TimeRestriction
    from pendulum import DateTime

# Only these runs advance the schedule; any other was started by a person, or by another DAG.
AUTOMATED = (DagRunType.SCHEDULED, DagRunType.BACKFILL_JOB)
STEP_ASIDE = timedelta(seconds=1)


class SessionTimetable(CronTriggerTimetable):
    """A CronTriggerTimetable whose scheduled runs always come, whatever a person starts by hand.

    A session is the logical date's day in the timetable's time zone. A scheduled run is named after the local time of its
    schedule, for example `scheduled__2026-03-20T18:00:00+09:00`. Airflow reserves the prefix, so no other run can take the
    name, and the time of day keeps two runs of one day apart when the schedule changes. Every other run is named by Airflow.

    Airflow allows one run per logical date and skips a scheduled run when its date is taken. When a run that was started by
    hand took it, the scheduled run gets the next free second. See docs/decisions/0021-scheduled-runs-always-come.md.
    """

    def generate_run_id(
        self, *, run_type: DagRunType, run_after: DateTime, data_interval: DataInterval | None, **extra: Any
    ) -> str:
        """Return the run id: the local time of the schedule for a scheduled run, Airflow's own for any other."""
        if run_type in AUTOMATED:
            run_after = run_after.in_timezone(self._timezone)
        return super().generate_run_id(run_type=run_type, run_after=run_after, data_interval=data_interval, **extra)

    def run_info_from_dag_run(self, *, dag_run: DagRun) -> DagRunInfo:
        """Return what the next run is computed from; without a data interval where `dag_run` does not advance the schedule."""
        info = super().run_info_from_dag_run(dag_run=dag_run)
        if dag_run.run_type in AUTOMATED or dag_run.logical_date is None:
            return info
        return info._replace(run_after=pendulum.instance(dag_run.logical_date), data_interval=None)

    def next_dagrun_info_v2(self, *, last_dagrun_info: DagRunInfo | None, restriction: TimeRestriction) -> DagRunInfo | None:
        """Return the next scheduled run; the same one, a second later, where `last_dagrun_info` is of a run by hand."""
        if last_dagrun_info is None or last_dagrun_info.data_interval is not None:
            return super().next_dagrun_info_v2(last_dagrun_info=last_dagrun_info, restriction=restriction)
        start = last_dagrun_info.run_after + STEP_ASIDE
        return DagRunInfo.interval(start, start + self._interval)
