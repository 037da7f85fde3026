"""Buckets and the quantiles read off them."""

from __future__ import annotations

from math import isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.metrics.histogram import Histogram

BOUNDS = (1.0, 2.0, 4.0, 8.0)


def test_a_bound_belongs_to_its_bucket() -> None:
    histogram = Histogram(BOUNDS)
    for value in (0.5, 1.0, 1.5, 8.0, 9.0):
        histogram.observe(value)
    assert histogram.counts == [2, 1, 0, 1, 1]
    assert (histogram.count, histogram.sum) == (5, 20.0)


def test_an_observation_may_count_several_times() -> None:
    histogram = Histogram(BOUNDS)
    histogram.observe(3.0, 10)
    assert (histogram.count, histogram.sum) == (10, 30.0)


def test_quantile_of_nothing_is_nan() -> None:
    assert isnan(Histogram(BOUNDS).quantile(0.5))


def test_quantile_beyond_the_last_bound_is_the_last_bound() -> None:
    histogram = Histogram(BOUNDS)
    histogram.observe(100.0)
    assert histogram.quantile(0.99) == 8.0


@given(st.lists(st.floats(0.0, 8.0), min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_quantile_lies_in_the_bucket_of_the_exact_one(values: list[float], share: float) -> None:
    histogram = Histogram(BOUNDS)
    for value in values:
        histogram.observe(value)
    rank = share * len(values)
    exact = sorted(values)[max(0, -int(-rank // 1) - 1)]
    index = next(index for index, bound in enumerate(BOUNDS) if exact <= bound)
    low = BOUNDS[index - 1] if index else 0.0
    assert low - 1e-9 <= histogram.quantile(share) <= BOUNDS[index] + 1e-9


@pytest.mark.parametrize("share", [0.0, -1.0])
def test_quantile_of_no_share_is_nan(share: float) -> None:
    histogram = Histogram(BOUNDS)
    histogram.observe(1.0)
    assert isnan(histogram.quantile(share))
