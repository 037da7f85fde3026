"""The search against servers of known capacity."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.load.search import GOAL, LOWEST, PRECISION, Search


def refusing(capacity: float, rate: float) -> float:
    """Goodput of a server that serves its capacity and refuses the rest at once."""
    return min(1.0, capacity / rate)


def find(capacity: float, start: float, highest: float) -> tuple[float, list[float]]:
    search, tried = Search(start, highest), []
    while (rate := search.rate()) is not None:
        tried.append(rate)
        search.saw(rate, refusing(capacity, rate))
    return search.passed, tried


@given(st.floats(1, 2_000), st.floats(0.5, 64))
def test_found_rate_is_the_capacity_within_the_precision(capacity: float, start: float) -> None:
    passed, tried = find(capacity, start, 10_000)
    edge = capacity / GOAL
    assert edge / PRECISION <= passed <= edge * 1.0001
    assert len(tried) <= 40


def test_server_without_capacity_ends_the_search_with_nothing() -> None:
    passed, tried = find(0.0, 4, 1_000)
    assert passed == 0
    assert min(tried) >= LOWEST


def test_search_stops_at_the_highest_rate() -> None:
    passed, tried = find(1e9, 4, 100)
    assert passed == tried[-1] == 100


@pytest.mark.parametrize("start", [1.0, 4.0, 64.0])
def test_rates_double_until_the_first_failure(start: float) -> None:
    _, tried = find(100, start, 1_000)
    doubled = [rate for rate in tried if rate > tried[0]]
    assert tried[0] == start
    if start < 64:
        assert doubled[0] == start * 2
