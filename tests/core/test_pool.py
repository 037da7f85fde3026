"""What a node's answers hold of its memory together."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.playbook import call, flying

from penstock.core.classify import DEFAULT
from penstock.core.flight import Flight
from penstock.core.lane import Lane
from penstock.core.lengths import AHEAD, Survival, bin_of
from penstock.core.pool import Pool

LANE = Lane("m", [])


def curve(mean: float = 500.0) -> Survival:
    rng = random.Random(1)
    made = Survival(0.8, 256)
    made.learn([(0, bin_of(int(rng.expovariate(1 / mean)) + 1), True) for _ in range(4_000)])
    made.settle()
    return made


CURVE = curve()


def flight(id: int, prompt_kv: int = 1_000, quota: int = 800, cap: int = 0) -> Flight:
    return flying(call(id, stream=True, max_tokens=cap), DEFAULT, LANE, 0.0, length=CURVE, quota=quota, prompt_kv=prompt_kv)


def pool(ages: list[float], clock: float, prompt_kv: int = 1_000) -> Pool:
    """Answers that have so many tokens each, summed up."""
    made = Pool()
    for id, age in enumerate(ages):
        one = flight(id, prompt_kv)
        made.add(one, clock)
        made.began(one, clock - age)
    made.refresh(clock, tight=True)
    return made


def test_what_is_held_now_is_prompts_and_tokens_so_far() -> None:
    made = pool([0.0, 100.0, 250.0], clock=1_000.0)
    assert made.used(1_000.0) == made.mean[0] == 3 * 1_000 + 350


def test_young_answers_are_expected_to_grow_and_old_ones_to_end() -> None:
    young = pool([0.0] * 100, 5_000.0, prompt_kv=10)
    assert young.peak() > 2 * young.mean[0]
    mixed = pool([random.Random(id).expovariate(1 / 500) for id in range(100)], 5_000.0)
    assert mixed.peak() < 1.15 * mixed.mean[0], "as many tokens are given back as are written"


def test_one_more_fits_while_the_peak_stays_inside_the_limit() -> None:
    made = pool([300.0] * 50, 5_000.0)
    one = flight(99)
    assert made.fits(one, 1_000, made.peak() + 3_000) and not made.fits(one, 1_000, made.peak())
    assert not made.fits(one, 5_000, made.mean[0] + 4_999)


def test_no_more_than_a_share_of_the_memory_is_kept_free_to_be_sure() -> None:
    few, many, one = pool([300.0] * 6, 5_000.0), pool([300.0] * 600, 5_000.0), flight(999)
    limit = 1.15 * (max(few.mean) + 1_500)
    few.free, many.free = 0.1, 0.1
    assert few.peak() > limit and few.fits(one, 1_000, limit)
    assert few.peak(limit) < limit
    few.free = 1.0
    assert not few.fits(one, 1_000, limit)
    assert many.peak(1.2 * many.mean[0]) == many.peak(), "many answers together are sure with less"


def test_answer_with_a_cap_is_not_expected_beyond_it() -> None:
    made = pool([], 0.0)
    made.free = 1.0
    limit = 2_500
    assert made.fits(flight(1, cap=64), 1_000, limit) and not made.fits(flight(2), 1_000, limit)
    one = flight(3, cap=64)
    made.add(one, 0.0)
    assert made.mean[2:] == [0.0] * (len(AHEAD) - 2)


@given(st.lists(st.tuples(st.integers(0, 3_000), st.integers(1, 20_000)), max_size=20), st.randoms())
def test_sums_are_the_same_step_by_step_and_anew(given_: list[tuple[int, int]], rng: random.Random) -> None:
    made, clock = pool([], 10_000.0), 10_000.0
    flights = []
    for id, (age, prompt_kv) in enumerate(given_):
        flights.append(flight(id, prompt_kv))
        flights[-1].clock = clock - age
        made.add(flights[-1], clock)
    for one in flights:
        if rng.random() < 0.5:
            made.drop(one, clock)
    step_by_step = made.mean, made.variance
    made.refresh(clock, tight=True)
    assert step_by_step[0] == pytest.approx(made.mean, abs=1e-3)
    assert step_by_step[1] == pytest.approx(made.variance, abs=1.0)


def test_answer_that_outgrows_its_reservation_is_told_once() -> None:
    made, one, other = Pool(), flight(1, quota=100), flight(2, quota=100)
    for each in (one, other):
        made.add(each, 0.0)
        made.began(each, 0.0)
    made.drop(other, 50.0)
    assert made.passed(99.0) == [] and made.passed(100.0) == [one] and made.passed(500.0) == []
    one.quota = 300
    made.grew(one)
    assert made.passed(299.0) == [] and made.passed(300.0) == [one]


def test_answer_reserved_up_to_its_cap_cannot_outgrow_it() -> None:
    made, one = Pool(), flight(1, quota=100, cap=100)
    made.add(one, 0.0)
    made.began(one, 0.0)
    assert not made.passes


def test_nothing_is_summed_while_memory_is_plentiful() -> None:
    made = Pool()
    made.add(flight(1), 0.0)
    made.refresh(0.0, tight=False)
    assert not made.ready and made.mean == [0.0] * len(AHEAD)
