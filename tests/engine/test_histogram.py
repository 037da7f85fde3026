from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.histogram import Histogram


@given(st.lists(st.tuples(st.floats(1e-6, 1e3), st.integers(1, 100)), min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_quantiles_are_within_half_a_bucket(rows: list[tuple[float, int]], share: float) -> None:
    histogram = Histogram()
    for value, weight in rows:
        histogram.add(value, weight)
    values = sorted(value for value, weight in rows for _ in range(weight))
    exact = values[max(0, -int(-share * len(values) // 1) - 1)]
    near = [value for value in values if value == pytest.approx(histogram.quantile(share), rel=0.021)]
    assert near
    assert abs(values.index(near[0]) - values.index(exact)) <= sum(1 for value in values if value == pytest.approx(exact, rel=0.05))
    assert histogram.mean() == pytest.approx(sum(values) / len(values))


@given(st.floats(1e-4, 1.0), st.floats(0.0, 1e-3), st.integers(1, 3_000), st.integers(1, 20))
def test_a_series_adds_up_to_its_values_one_by_one(first: float, slope: float, steps: int, weight: int) -> None:
    series, single = Histogram(), Histogram()
    series.add_series(first, slope, steps, weight)
    for step in range(steps):
        single.add(first + slope * step, weight)
    assert series.count == single.count
    assert series.total == pytest.approx(single.total)
    for share in (0.1, 0.5, 0.9, 1.0):
        assert series.quantile(share) == pytest.approx(single.quantile(share), rel=0.09)


def test_merging_adds_up_and_an_empty_one_is_zero() -> None:
    one, other = Histogram(), Histogram()
    assert (one.quantile(0.5), one.mean(), one.rows()) == (0.0, 0.0, [])
    one.add(1.0)
    other.add(3.0, 3.0)
    one.merge(other)
    assert (one.count, one.mean()) == (4.0, 2.5)
    assert one.quantile(0.9) == pytest.approx(3.0, rel=0.02)
    one.add(0.0)
    assert one.quantile(0.0) < 1e-6
