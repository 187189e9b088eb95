"""A minute of `make bench-steps`: it runs, and a step costs a small multiple of a bare pod."""

from __future__ import annotations

import bench_steps
import pytest

from ..conftest import CLUSTER

# To a bare pod, which costs two processes of kubectl besides. On an idle machine it is about 1.
MIN_RATIO, MAX_RATIO = 0.5, 4.0


@pytest.mark.benchmark
def test_the_benchmark_measures_every_way_to_run_a_step() -> None:
    benchmark, chain, fan = bench_steps.Benchmark(CLUSTER), bench_steps.Costs(), bench_steps.Costs()
    benchmark.measure_rounds("chain", [(bench_steps.BARE, bench_steps.OURS, bench_steps.STOCK)], chain)
    benchmark.measure_rounds("few", [(bench_steps.BARE, bench_steps.OURS)], fan)
    print(bench_steps.format_table("chain", chain, bench_steps.CHAIN), bench_steps.format_table("fan", fan, 1))
    for costs_by_way in (chain, fan):
        ours = bench_steps.ratio(costs_by_way[bench_steps.OURS], costs_by_way[bench_steps.BARE], "seconds")
        assert MIN_RATIO < ours < MAX_RATIO
        assert all(cost.cpu > 0 and cost.memory > 0 for costs in costs_by_way.values() for cost in costs)
    stock = bench_steps.ratio(chain[bench_steps.STOCK], chain[bench_steps.BARE], "seconds")
    assert stock > bench_steps.ratio(chain[bench_steps.OURS], chain[bench_steps.BARE], "seconds")
