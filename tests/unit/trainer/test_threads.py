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
    ids=["v2", "one and a half", "half", "many", "v2, none", "v1", "v1, none", "no cgroup"],
)
def test_a_fit_takes_as_many_threads_as_its_container_was_given_cpus(
    files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert thread_count(tmp_path) == expected


@pytest.fixture
def one_cpu() -> Iterator[None]:
    if not hasattr(os, "sched_setaffinity") or os.cpu_count() == 1:
        pytest.skip("this machine has no CPU sets, or one CPU")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [min(before)])
    yield
    os.sched_setaffinity(0, before)


def test_a_cpu_set_counts_where_it_is_smaller_than_the_quota(one_cpu: None, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("400000 100000")
    assert thread_count(tmp_path) == 1
