"""Neither a popular prefix nor a burst of one herds: the benchmark's worlds, for a shorter time."""

from __future__ import annotations

from benchmarks.herding import NODE, NODES, SMALL, burst, in_time, popular, run


def test_popular_prefix_on_small_caches_does_not_herd() -> None:
    arrivals = popular(14.0, 60.0, seed=3)
    ours, _ = run("penstock", arrivals, SMALL)
    theirs, _ = run("sglang-cache-aware", arrivals, SMALL)
    print(f"most / least loaded {ours.uneven:.2f} beside {theirs.uneven:.2f}, mean TTFT {ours.ttft_s:.3f} s beside {theirs.ttft_s:.3f} s")
    assert ours.uneven < 1.6 and ours.uneven < 0.9 * theirs.uneven
    assert ours.ttft_s < 0.5 * theirs.ttft_s


def test_popular_prefix_is_still_reused() -> None:
    arrivals = popular(14.0, 60.0, seed=3)
    ours, blind = run("penstock", arrivals, SMALL)[0], run("fifo-rr", arrivals, SMALL)[0]
    assert ours.computed < 0.95 * blind.computed and ours.ttft_s < 1.1 * blind.ttft_s


def test_small_burst_of_one_prefix_computes_it_once() -> None:
    found, _ = run("penstock", burst(20), NODE)
    spread, _ = run("least-requests", burst(20), NODE)
    assert found.nodes == 1 and spread.nodes == NODES
    assert found.computed < 0.25 * spread.computed and found.ttft_s < 1.3 * spread.ttft_s


def test_large_burst_of_one_prefix_spreads() -> None:
    found, _ = run("penstock", burst(300), NODE)
    spread, _ = run("least-requests", burst(300), NODE)
    assert found.nodes >= 4
    assert found.computed <= spread.computed and found.ttft_s < 1.5 * spread.ttft_s


def test_burst_with_deadlines_takes_idle_nodes_before_any_of_it_is_late() -> None:
    """Behind one node a third of these would be in time."""
    assert in_time(run("penstock", burst(60), NODE, slo_s=2.5)[1], 2.5) > 0.95
    assert in_time(run("penstock", burst(200), NODE, slo_s=4.0)[1], 4.0) > 0.75
