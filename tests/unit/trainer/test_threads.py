from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from trainer.threads import thread_count

V1 = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "6400000 100000\n"}, 4),
        ({"cpu.max": "max 100000\n"}, 1),
        (dict(zip(V1, ("300000\n", "100000\n"), strict=True)), 3),
        (dict(zip(V1, ("-1\n", "100000\n"), strict=True)), 1),
        ({}, 1),
    ],
    ids=["v2", "one and a half", "half", "many", "v2, unlimited", "v1", "v1, unlimited", "no cgroup"],
)
def test_thread_count_is_the_cpu_quota(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert thread_count(tmp_path, {}) == expected


@pytest.mark.parametrize(
    ("millicores", "quota", "expected"),
    [
        ("500", "max", 1),
        ("3000", "max", 3),
        ("1999", "max", 1),
        ("8000", "max", 4),
        ("3000", "200000", 2),
        ("", "max", 1),
        ("many", "max", 1),
    ],
)
def test_without_a_quota_the_cpu_request_is_the_thread_count(
    millicores: str, quota: str, expected: int, tmp_path: Path
) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota} 100000\n")
    assert thread_count(tmp_path, {"STEP_CPU_MILLICORES": millicores}) == expected


@pytest.fixture
def single_cpu() -> Iterator[None]:
    if not hasattr(os, "sched_setaffinity") or os.cpu_count() == 1:
        pytest.skip("this machine has no CPU sets, or one CPU")
    previous = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [min(previous)])
    yield
    os.sched_setaffinity(0, previous)


def test_cpu_set_smaller_than_the_quota_applies(single_cpu: None, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("400000 100000")
    assert thread_count(tmp_path, {}) == 1
