"""What is reported, against definitions worked out by hand."""

from __future__ import annotations

from math import inf

import pytest
from tests.sim.fleet import SMALL, profile, world

from penstock.facts import Outcome
from penstock.sim.arrival import Arrival
from penstock.sim.report import bar, best_s, percent, seconds, summary, table
from penstock.sim.slo import Slo
from penstock.sim.spread import spread
from penstock.sim.world import Trip

KEYS = [
    "preset", "requests", "completed", "refused", "diverted", "goodput", "good_per_s", "good_work_per_s", "ttft_s",
    "tpot_s", "itl_s", "busy", "utilisation", "prefix_hit",
    "memory", "preempted", "output_tokens_per_s", "by_prompt_length", "fairness", "least_served", "whole_s", "by_class",
]  # fmt: skip


def test_one_request_is_reported_as_it_went() -> None:
    slo = Slo(ttft_s=1.0, tpot_s=0.02)
    result = summary("x", world([Arrival(5.0, 100, 11)], nodes=2, slo=slo), slo)
    assert list(result) == KEYS
    assert (result["preset"], result["requests"], result["completed"], result["refused"], result["goodput"]) == ("x", 1, 1, 0, 1.0)
    assert result["ttft_s"] == {"mean": 0.11, "p50": 0.11, "p90": 0.11, "p99": 0.11}
    assert result["tpot_s"] == {"mean": 0.01, "p50": 0.01, "p99": 0.01}
    assert result["itl_s"]["p50"] == pytest.approx(0.01, rel=0.03)
    assert result["busy"] == 0.5
    assert result["output_tokens_per_s"] == round(11 / 0.21, 6)
    assert result["good_per_s"] == round(1 / 0.21, 6)
    assert result["good_work_per_s"] == pytest.approx((100 + 2 * 11) / 0.21)
    assert (result["prefix_hit"], result["preempted"]) == (0.0, 0)
    assert result["by_prompt_length"] == [{"prompt_tokens": [100, 100], "requests": 1, "goodput": 1.0}]


def test_nothing_measured_is_none_and_still_json() -> None:
    result = summary("x", world([]), Slo())
    assert list(result) == KEYS
    assert (result["requests"], result["goodput"], result["busy"], result["prefix_hit"]) == (0, None, None, None)
    assert result["ttft_s"] == {"mean": None, "p50": None, "p90": None, "p99": None}
    assert result["itl_s"] == {"p50": None, "p99": None}
    assert result["by_prompt_length"] == []


def test_refused_requests_count_against_goodput() -> None:
    slo = Slo(ttft_s=1.0)
    made = world([Arrival(0.0, 500, 1), Arrival(0.0, 5_000, 1)], nodes=1, slo=slo)
    result = summary("x", made, slo)
    assert (result["completed"], result["refused"], result["goodput"]) == (1, 1, 0.5)
    assert made.trips[1].outcome is Outcome.REFUSED_DEADLINE


def test_one_token_answers_have_no_tpot() -> None:
    result = summary("x", world([Arrival(0.0, 100, 1)]), Slo())
    assert result["tpot_s"] == {"mean": None, "p50": None, "p99": None}
    assert result["goodput"] == 1.0


def test_rate_of_good_answers_does_not_count_a_backlog_as_served_in_time() -> None:
    arrivals = [Arrival(0.1 * index, 1_000, 1) for index in range(40)]
    result = summary("x", world(arrivals, "fifo-rr", nodes=1), Slo())
    assert result["goodput"] == 1.0
    assert result["good_per_s"] == pytest.approx(3 / 3.51, rel=0.02), "one a second; the first was done before a tenth of the time"


def test_rate_of_good_answers_is_the_same_for_a_short_run_and_a_long_one() -> None:
    rates = []
    for count in (40, 400):
        arrivals = [Arrival(0.5 * index, 100, 401) for index in range(count)]
        rates.append(summary("x", world(arrivals, "least-requests"), Slo())["good_per_s"])
    assert rates == pytest.approx([2.0, 2.0], rel=0.06), "four seconds of writing each, and an idle fleet to fill"


def test_quartiles_split_all_requests_by_prompt_length() -> None:
    arrivals = [Arrival(float(index), 10 * (index + 1), 1) for index in range(10)]
    parts = summary("x", world(arrivals), Slo())["by_prompt_length"]
    assert [part["requests"] for part in parts] == [2, 3, 2, 3]
    assert [part["prompt_tokens"] for part in parts] == [[10, 20], [30, 50], [60, 70], [80, 100]]


def test_prefix_hits_are_a_share_of_prompt_tokens() -> None:
    arrivals = [Arrival(0.0, 1_100, 1, (1, 2)), Arrival(5.0, 1_100, 1, (1, 2))]
    assert summary("x", world(arrivals, nodes=1), Slo())["prefix_hit"] == round(1_024 / 2_200, 6)


def trip(prompt: int, output: int, cached: int = 0) -> Trip:
    return Trip(Arrival(0.0, prompt, output), Outcome.COMPLETED, 0, 1.0, 2.0, cached)


def test_best_time_shares_steps_among_a_full_batch() -> None:
    done = [trip(100, 81)] * 10
    assert best_s(profile(c3_s=0.0, kv_tokens=10**9), done) == pytest.approx(0.01 * 800 / 8)
    assert best_s(profile(c3_s=0.0, c1_s=0.001, c2_s=1e-6, kv_tokens=10**9), done) == pytest.approx(
        0.01 * 800 / 8 + 0.001 * 800 + 1e-6 * 800 * 140.5
    )


def test_best_time_is_bound_by_memory_and_by_prefill_chunks() -> None:
    assert best_s(profile(c3_s=0.0, kv_tokens=281), [trip(100, 81)] * 10) == pytest.approx(0.01 * 800 / 2)
    assert best_s(SMALL, [trip(5_632, 1, 512)]) == pytest.approx(0.01 * 10 + 0.001 * 5_120)
    assert best_s(SMALL, []) == 0.0


def test_utilisation_never_exceeds_busy_where_every_step_is_needed() -> None:
    arrivals = [Arrival(0.05 * index, 300, 40) for index in range(200)]
    result = summary("x", world(arrivals, "least-requests"), Slo())
    assert 0.5 < result["utilisation"] <= result["busy"] <= 1.0


def test_percentiles_are_nearest_rank() -> None:
    assert spread([float(value) for value in range(1, 101)], (50, 90, 99)) == {"mean": 50.5, "p50": 50.0, "p90": 90.0, "p99": 99.0}
    assert spread([3.0], (50, 99)) == {"mean": 3.0, "p50": 3.0, "p99": 3.0}


def test_table_has_a_row_a_preset_and_bars() -> None:
    results = [summary(name, world([Arrival(0.0, 100, 2)], name), Slo()) for name in ("penstock", "fifo-rr")]
    assert table([*results, summary("none", world([]), Slo())]).row_count == 3
    assert bar(1.0) == "█" * 24
    assert bar(0.0) == "·" * 24
    assert bar(0.51).startswith("█" * 12 + "▎")
    assert (percent(None), percent(0.125), seconds(None), seconds(0.0123), seconds(12.34)) == ("-", "12.5%", "-", "12 ms", "12.3 s")
    assert seconds(inf) == "inf s"
