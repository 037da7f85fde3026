"""What is learned of nodes and answers."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.predict import AIM, MIN_PREFILL_SHARE, Decode, Lengths, Line, Prefill


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


@given(st.lists(st.tuples(st.integers(0, 100_000), st.floats(0, 100)), max_size=100))
def test_rates_never_turn_negative(samples: list[tuple[int, float]]) -> None:
    prefill = Prefill(None)
    for tokens, seconds in samples:
        prefill.learn(tokens, seconds)
        assert prefill.base_s >= 0 and prefill.token_s > 0


def test_prefill_is_paced_to_what_keeps_the_token_rate() -> None:
    decode = Decode()
    for share in (0.2, 0.5, 0.8, 1.0, 0.4, 0.9):
        decode.learn(int(1_000 * (50 - 44 * share)), 1_000.0, share)
    assert decode.prefill_share(0.1) == pytest.approx((50 - 10 / AIM) / 44, abs=0.02)
    assert decode.prefill_share(10.0) == 1.0
    assert decode.prefill_share(0.001) == MIN_PREFILL_SHARE


def test_nothing_is_paced_before_anything_is_known() -> None:
    decode = Decode()
    decode.learn(0, 1.0, 0.5)
    assert decode.prefill_share(0.01) == 1.0 and decode.itl_s == 0.0


def test_lengths_follow_the_mean_and_the_high_quantile() -> None:
    lengths, rng, key = Lengths(), random.Random(1), ("m", "c")
    seen = [int(rng.expovariate(1 / 300)) + 1 for _ in range(5_000)]
    for tokens in seen:
        lengths.learn(key, tokens)
    share = sum(tokens <= lengths.high(key, 0) for tokens in seen) / len(seen)
    assert share == pytest.approx(0.8, abs=0.06)
    assert lengths.mean(key, 0) == pytest.approx(300, rel=0.25)


def test_the_caller_s_cap_bounds_what_is_expected() -> None:
    lengths = Lengths()
    assert lengths.high(("m", "c"), 10) == 10 and lengths.high(("m", "c"), 0) == 257
    lengths.learn(("m", "c"), 1_000)
    assert lengths.mean(("m", "c"), 10) == 10
