"""The benchmark of make bench-steps, a minute of it: it runs, and a step costs no multiple of a bare pod."""

from __future__ import annotations

import bench_steps
import pytest
from devtools.airflow_client import AirflowClient

MOST = 4.0  # times a bare pod; measured on a machine that does nothing else: below 2


@pytest.mark.benchmark
def test_every_way_to_run_a_step_can_be_measured(airflow: AirflowClient) -> None:
    benchmark, chain, fan = bench_steps.Bench(airflow), bench_steps.Figures(), bench_steps.Figures()
    benchmark.rounds("chain", [(bench_steps.BARE, bench_steps.OURS, bench_steps.STOCK)], chain)
    benchmark.rounds("few", [(bench_steps.BARE, bench_steps.OURS)], fan)
    print(bench_steps.table("chain", chain, bench_steps.CHAIN), bench_steps.table("fan", fan, 1))
    for figures in (chain, fan):
        ours = bench_steps.ratio(figures[bench_steps.OURS], figures[bench_steps.BARE], "seconds")
        assert 1 < ours < MOST
        assert all(cost.cpu > 0 and cost.memory > 0 for costs in figures.values() for cost in costs)
    stock = bench_steps.ratio(chain[bench_steps.STOCK], chain[bench_steps.BARE], "seconds")
    assert stock > bench_steps.ratio(chain[bench_steps.OURS], chain[bench_steps.BARE], "seconds")
