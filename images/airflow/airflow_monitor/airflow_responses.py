"""Parses responses of Airflow's REST API. Each function raises KeyError, TypeError or ValueError if one is unexpected."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from typing import Any

from step_contract.schemas import MARKET_TIME_ZONE

from airflow_monitor.models import Backfill, Dag, Run, TaskInstance

TRIGGERER_TIMEOUT = timedelta(seconds=60)
LATE_TAG = re.compile(r"late:([1-9][0-9]{0,4})")  # minutes
LOOKS_LIKE_LATE_TAG = re.compile(r"\s*late(\s*[:=]|\s+\d)", re.IGNORECASE)
Json = Mapping[str, Any]


def parse_dag(item: Json) -> Dag:
    """Return the DAG."""
    tags = frozenset(tag["name"] for tag in item["tags"])
    return Dag(
        item["dag_id"],
        item["is_paused"],
        # An import error is an incident of the file.
        item["is_stale"] and not item["has_import_errors"],
        tags,
        parse_time(item["next_dagrun_run_after"]),
        *_parse_late_tag(tags),
    )


def parse_run(item: Json) -> Run:
    """Return the run without task instances."""
    return Run(
        dag_id=item["dag_id"],
        run_id=item["dag_run_id"],
        run_type=item["run_type"],
        state=item["state"],
        run_after=datetime.fromisoformat(item["run_after"]),
        logical_date=parse_time(item["logical_date"]),
        queued_at=parse_time(item["queued_at"]),
        start_date=parse_time(item["start_date"]),
        end_date=parse_time(item["end_date"]),
        conf=item["conf"] or {},
    )


def parse_task_instance(item: Json, now: datetime) -> TaskInstance:
    """Return the task instance without its step's result; `now` is the time in Airflow."""
    state = item["state"] or ""
    since = {"queued": item["queued_when"], "scheduled": item["scheduled_when"]}.get(state) or item["start_date"]
    end_date = parse_time(item["end_date"])
    failed_at = end_date if state in ("failed", "up_for_retry") else None
    return TaskInstance(
        item["task_id"],
        state,
        item["try_number"],
        item["map_index"],
        state_since=failed_at or parse_time(since),
        start_date=parse_time(item["start_date"]),
        end_date=end_date,
        is_orphaned=state == "deferred" and not _has_live_triggerer(item, now),
        index_name=_parse_index_name(item),
    )


def _parse_index_name(item: Json) -> str:
    """Return Airflow's name of the map index, from the task's `map_index_template`; empty if it has none."""
    name = item.get("rendered_map_index")
    return name if isinstance(name, str) and item["map_index"] >= 0 and name != str(item["map_index"]) else ""


def parse_backfill(item: Json) -> Backfill:
    """Return the backfill without its runs."""
    return Backfill(
        item["id"],
        item["dag_id"],
        _parse_session(item["from_date"]),
        _parse_session(item["to_date"]),
        datetime.fromisoformat(item["created_at"]),
        parse_time(item["completed_at"]),
        (),
    )


def parse_components(content: Json) -> dict[str, tuple[str, datetime | None]]:
    """Return status and latest heartbeat of each component that exists."""
    components = {}
    for name, component in content.items():
        if component and component.get("status"):
            heartbeat = next((value for key, value in component.items() if key.startswith("latest_")), None)
            components[name] = component["status"], parse_time(heartbeat)
    return components


def parse_time(text: str | None) -> datetime | None:
    """Return a time with its time zone; None if there is none."""
    return datetime.fromisoformat(text) if text else None


def last_line(trace: str) -> str:
    """Return the last line of a traceback, which names the error."""
    lines = [line.strip() for line in trace.splitlines() if line.strip()]
    return lines[-1] if lines else "no traceback recorded"


def _parse_late_tag(tags: Iterable[str]) -> tuple[timedelta | None, str]:
    """Return the limit that a tag `late:MINUTES` sets, None without one, and what is wrong with the tags of this kind."""
    late_tags = sorted(tag for tag in tags if LOOKS_LIKE_LATE_TAG.match(tag))
    if not late_tags:
        return None, ""
    if len(late_tags) > 1:
        return None, f"more than one tag for its lateness ({', '.join(late_tags)})"
    match = LATE_TAG.fullmatch(late_tags[0])
    return (timedelta(minutes=int(match[1])), "") if match else (None, f"the invalid tag {late_tags[0]!r}")


def _has_live_triggerer(item: Json, now: datetime) -> bool:
    trigger, job = item["trigger"], item["triggerer_job"]
    heartbeat = parse_time(job["latest_heartbeat"]) if job else None
    if not trigger or trigger["triggerer_id"] is None:
        return False
    return heartbeat is None or now - heartbeat <= TRIGGERER_TIMEOUT


def _parse_session(text: str) -> date:
    return datetime.fromisoformat(text).astimezone(MARKET_TIME_ZONE).date()
