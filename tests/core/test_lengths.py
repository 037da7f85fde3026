"""How long answers are thought to be."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.lengths import BINS, ENOUGH, KEYS, MOST, STARTS, Lengths, Survival, bin_of, capped

KEY = ("m", "c", "t")


def learned(lengths: list[int]) -> Survival:
    made = Survival(0.8, 256)
    made.learn([(0, bin_of(tokens), True) for tokens in lengths])
    made.settle()
    return made


@given(st.integers(0, MOST - 1))
def test_every_length_lies_in_its_bin(tokens: int) -> None:
    bin = bin_of(tokens)
    assert STARTS[bin] <= tokens < STARTS[bin + 1]


def test_longest_lengths_share_the_last_bin() -> None:
    assert bin_of(10**12) == bin_of(MOST) == BINS - 1


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 5_000), st.booleans()), max_size=60))
def test_fewer_answers_are_longer_the_longer_it_is(news: list[tuple[int, int, bool]]) -> None:
    made = Survival(0.8, 256)
    made.learn([(bin_of(before), bin_of(before + more), ended) for before, more, ended in news])
    made.settle()
    shares = [made.over(start) for start in STARTS[:-1]]
    assert shares == sorted(shares, reverse=True) and 0.0 <= shares[-1] <= shares[0] == 1.0
    assert 1 <= made.high <= MOST and made.mean >= 0.0


def test_mean_and_quantile_are_those_of_what_was_seen() -> None:
    rng = random.Random(1)
    made = learned([int(rng.expovariate(1 / 300)) + 1 for _ in range(5_000)])
    assert made.mean == pytest.approx(300, rel=0.08)
    assert made.high == pytest.approx(300 * 1.609, rel=0.1)
    assert made.ahead(0)[1] == pytest.approx(0.808, abs=0.03), "64 tokens on, exp(-64/300) of them"
    assert made.longer(600, 0.2) == pytest.approx(600 + 300 * 1.609, rel=0.15), "without memory, as much again"


def test_answers_that_still_run_keep_short_ones_from_being_taken_for_all() -> None:
    rng, news = random.Random(1), []
    for _ in range(2_000):
        tokens = int(rng.expovariate(1 / 500)) + 1
        news.append((0, bin_of(min(tokens, 200)), tokens <= 200))
    made = Survival(0.8, 256)
    made.learn(news)
    made.settle()
    assert made.over(190) == pytest.approx(0.68, abs=0.04), "exp(-190/500)"
    assert made.high > 400


def test_answer_counted_in_parts_weighs_as_one() -> None:
    whole, parts = learned([100, 900] * 200), Survival(0.8, 256)
    parts.learn(
        [(bin_of(before), bin_of(tokens), ended) for before, tokens, ended in ((0, 100, True), (0, 300, False), (300, 900, True))] * 200
    )
    parts.settle()
    assert parts.mean == pytest.approx(whole.mean, rel=0.05)


def test_nothing_known_of_a_key_is_answered_by_what_is_known_of_its_class_then_its_model() -> None:
    lengths = Lengths()
    assert lengths.find(KEY) is lengths.start
    for _ in range(ENOUGH):
        lengths.learn(("m", "other", "u"), 1_000)
    assert lengths.find(KEY).mean == pytest.approx(1_000, rel=0.1), "by its model"
    for _ in range(2 * ENOUGH):
        lengths.learn(("m", "c", "u"), 100)
    assert lengths.find(KEY).mean == pytest.approx(100, rel=0.1), "by its class"
    for _ in range(2 * ENOUGH):
        lengths.learn(KEY, 10)
    assert lengths.find(KEY).mean == pytest.approx(10, rel=0.2)


def test_what_was_seen_fades() -> None:
    lengths = Lengths()
    for tokens, times in ((1_000, 2_000), (50, 6_000)):
        for _ in range(times):
            lengths.learn(KEY, tokens)
    assert lengths.high(KEY, 0) < 100


def test_table_is_bounded() -> None:
    lengths = Lengths()
    for tenant in range(2 * KEYS):
        lengths.learn(("m", "c", f"t{tenant}"), 100)
    assert len(lengths.known) == KEYS and ("m",) in lengths.known


def test_the_caller_s_cap_bounds_what_is_expected() -> None:
    lengths = Lengths()
    assert lengths.high(KEY, 10) == 10 and lengths.high(KEY, 0) == 256
    for _ in range(ENOUGH):
        lengths.learn(KEY, 1_000)
    assert lengths.mean(KEY, 10) == 10 and capped(3.5, 0) == 3.5


def test_a_new_tenant_is_like_the_one_in_the_middle_and_not_like_the_one_that_asks_most() -> None:
    lengths = Lengths()
    for tenant, tokens, count in (("hog", 8_000, 2_000), ("a", 200, 100), ("b", 300, 100)):
        for _ in range(count):
            lengths.learn(("m", "c", tenant), tokens)
    assert 200 < lengths.find(("m", "c", "new")).mean < 400
    assert lengths.find(("m", "c", "hog")).mean > 7_000 and lengths.find(("m", "c")).mean > 5_000


def test_while_few_tenants_are_known_all_answers_tell_of_a_new_one() -> None:
    lengths = Lengths()
    for tenant, tokens in (("a", 200), ("b", 8_000)):
        for _ in range(100):
            lengths.learn(("m", "c", tenant), tokens)
    assert lengths.find(("m", "c", "new")) is lengths.find(("m", "c"))


def test_the_middle_follows_what_is_learned() -> None:
    lengths = Lengths()
    for tenant in ("a", "b", "c"):
        for _ in range(50):
            lengths.learn(("m", "c", tenant), 100)
    assert lengths.find(("m", "c", "new")).mean < 150
    for tenant in ("a", "b", "c"):
        for _ in range(500):
            lengths.learn(("m", "c", tenant), 1_000)
    assert lengths.find(("m", "c", "new")).mean > 500
