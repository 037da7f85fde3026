"""Gaps between arrivals."""

from __future__ import annotations

from random import Random
from statistics import mean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.sim.gaps import gaps, shape_of, weibull_cv


@pytest.mark.parametrize("kind", ["Gamma", "Weibull"])
@pytest.mark.parametrize("cv", [0.3, 1.0, 2.5])
def test_gaps_have_mean_one_and_the_asked_variation(kind: str, cv: float) -> None:
    drawn = gaps(kind, shape_of(kind, cv), 60_000, Random(1))
    assert mean(drawn) == pytest.approx(1.0, rel=0.05)
    assert stdev(drawn) / mean(drawn) == pytest.approx(cv, rel=0.08)


@given(st.floats(0.05, 50.0))
def test_weibull_shape_is_found_for_any_variation(cv: float) -> None:
    assert weibull_cv(shape_of("Weibull", cv)) == pytest.approx(cv, rel=1e-3)


def test_shapes_beyond_what_numbers_hold_give_no_gap() -> None:
    assert gaps("Weibull", 0.001, 3, Random(1)) == [0.0, 0.0, 0.0]
