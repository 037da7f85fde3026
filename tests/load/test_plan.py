"""Arrivals are decided in advance and repeat with their seed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from statistics import stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.load.plan import Planned, Shape, poisson, replay

SHAPE = Shape(10, 5)


def test_poisson_arrivals_repeat_with_their_seed() -> None:
    assert list(poisson(20, 5, SHAPE, 3)) == list(poisson(20, 5, SHAPE, 3))
    assert list(poisson(20, 5, SHAPE, 3)) != list(poisson(20, 5, SHAPE, 4))


@given(st.floats(0.1, 500), st.floats(0.1, 20), st.integers(0, 1_000))
def test_poisson_arrivals_keep_count_order_and_end(rate: float, duration_s: float, seed: int) -> None:
    times = [planned.at for planned in poisson(rate, duration_s, SHAPE, seed)]
    assert len(times) == max(1, round(rate * duration_s))
    assert all(later >= earlier for earlier, later in pairwise(times))
    assert 0 < times[0] <= times[-1] < duration_s


def test_poisson_gaps_vary_as_exponential_ones_do() -> None:
    times = [planned.at for planned in poisson(100, 50, SHAPE, 1)]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert 0.009 < stdev(gaps) < 0.011


def test_replay_starts_at_zero_and_keeps_the_gaps() -> None:
    rows = [Planned(at, SHAPE) for at in (100.0, 101.0, 104.0)]
    assert [planned.at for planned in replay(rows, 2.0, None)] == [0.0, 0.5, 2.0]


def test_replay_is_cut_after_its_duration() -> None:
    rows = [Planned(float(at), SHAPE) for at in range(10)]
    assert [planned.at for planned in replay(rows, 1.0, 3.0)] == [0.0, 1.0, 2.0]


def test_replay_reads_no_further_than_it_needs() -> None:
    def rows() -> Iterator[Planned]:
        yield Planned(0.0, SHAPE)
        yield Planned(5.0, SHAPE)
        pytest.fail("read past the end")

    assert len(list(replay(rows(), 1.0, 3.0))) == 1
