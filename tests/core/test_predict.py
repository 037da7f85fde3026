"""What is learned of nodes and answers."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.predict import Line, Prefill, Steps


@given(st.floats(0, 1), st.floats(1e-5, 1e-3), st.integers(0, 1_000))
def test_line_finds_the_line_behind_its_points(a: float, b: float, seed: int) -> None:
    rng, line = random.Random(seed), Line(0.02, 1e-4, 4_000)
    for _ in range(200):
        x = rng.uniform(0, 10_000)
        line.learn(x, a + b * x)
    assert line.at(5_000) == pytest.approx(a + b * 5_000, rel=0.05)


def test_line_stays_near_its_prior_where_it_has_seen_one_place_only() -> None:
    line = Line(0.0, 1e-4, 4_000)
    for _ in range(100):
        line.learn(1_000, 0.2)
    assert line.at(1_000) == pytest.approx(0.2, rel=0.02) and line.b > 0


def learned(base: float, rate: float, batch: int = 1) -> Prefill:
    prefill, now, rng = Prefill(None), 0.0, random.Random(3)
    for _ in range(300):
        prefill.began(now)
        sizes = [rng.randrange(100, 8_000) for _ in range(batch)]
        now += base + rate * sum(sizes)
        for size in sizes:
            prefill.first_token(size, now)
        now += 1.0
    return prefill


def test_prefill_rate_is_learned_from_first_tokens() -> None:
    prefill = learned(0.01, 1 / 14_000)
    assert prefill.base_s + 4_000 * prefill.token_s == pytest.approx(0.01 + 4_000 / 14_000, rel=0.03)


def test_prompts_computed_in_one_step_are_learned_as_one() -> None:
    prefill = learned(0.01, 1 / 14_000, batch=3)
    assert prefill.base_s + 12_000 * prefill.token_s == pytest.approx(0.01 + 12_000 / 14_000, rel=0.05)


def test_one_stall_moves_the_prediction_little() -> None:
    prefill = learned(0.01, 1 / 14_000)
    before = prefill.base_s + 4_000 * prefill.token_s
    prefill.learn(4_000, 60.0)
    assert prefill.base_s + 4_000 * prefill.token_s < 1.3 * before


def test_a_backlog_of_short_prompts_takes_full_steps() -> None:
    """An engine whose steps hold 2,048 tokens and last 7 ms and 10 us a token, kept full by prompts of about 100."""
    prefill, now, rng = Prefill(None), 0.0, random.Random(3)
    for step in range(400):
        tokens = rng.randrange(100, 2_048) if step < 50 else 2_048
        prefill.began(now)
        now += 0.007 + 10e-6 * tokens
        prefill.first_token(tokens, now)
        prefill.first_token(0, now + 1.0)
    assert 10 * 2_048 * prefill.token_s == pytest.approx(10 * (0.007 + 10e-6 * 2_048), rel=0.15)


@given(st.lists(st.tuples(st.integers(0, 100_000), st.floats(0, 100)), max_size=100))
def test_rates_never_turn_negative(samples: list[tuple[int, float]]) -> None:
    prefill = Prefill(None)
    for tokens, seconds in samples:
        prefill.learn(tokens, seconds)
        assert prefill.base_s >= 0 and prefill.token_s > 0


def stepped(c0: float, c1: float, c3: float, intervals: int = 200) -> Steps:
    """An engine with these steps, seen through its token counts."""
    steps, rng = Steps(None), random.Random(5)
    for _ in range(intervals):
        streams, prefill = rng.randrange(5, 150), rng.uniform(0.0, 0.7)
        rate = (1 - prefill) / (c0 + c1 * streams)
        steps.learn(round(1_000 * rate * streams), 1_000.0 * streams, 1_000 * prefill / c3, 1_000.0)
    return steps


@given(st.floats(0.004, 0.05), st.floats(5e-5, 1e-3), st.floats(1e-5, 3e-4))
def test_the_engine_s_step_is_found_in_the_counts(c0: float, c1: float, c3: float) -> None:
    steps = stepped(c0, c1, c3)
    alone_s, crowd_s = steps.parts()
    assert alone_s + crowd_s * 50 == pytest.approx(c0 + c1 * 50, rel=0.1)
    assert steps.token_s == pytest.approx(c3, rel=0.1)


def test_idle_intervals_teach_no_steps() -> None:
    steps = Steps(None)
    steps.learn(0, 1.0, 0.0, 1.0)
    steps.learn(5, 0.1, 0.0, 1.0)
    assert steps.factors == [1.0, 1.0, 1.0] and steps.itl_s == 0.02


@given(st.lists(st.tuples(st.integers(0, 10_000), st.floats(0, 300), st.floats(0, 1e6)), max_size=200))
def test_no_counts_lead_out_of_bounds(seen: list[tuple[int, float, float]]) -> None:
    steps = Steps(None)
    for tokens, stream_s, prefill in seen:
        steps.learn(tokens, stream_s, prefill, 1.0)
        assert all(0.02 <= factor <= 50.0 for factor in steps.factors)
        assert min(*steps.parts(), steps.token_s) > 0
