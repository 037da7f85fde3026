"""The search against servers of known capacity."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.load.search import GOAL, LONG, LOWEST, PRECISION, Search, Step

SHORT_S = 8.0
Server = Callable[[Step], float]


def refusing(capacity: float) -> Server:
    """Serves its capacity and refuses the rest at once."""
    return lambda step: min(1.0, capacity / step.rate)


def queueing(capacity: float, patience_s: float) -> Server:
    """Queues without end; an answer is good while the queue before it is shorter than the objective's `patience_s`."""

    def goodput(step: Step) -> float:
        growth = step.rate / capacity - 1
        length_s = SHORT_S * (LONG if step.long else 1)
        return 1.0 if growth <= 0 else min(1.0, patience_s / growth / length_s)

    return goodput


def find(server: Server, start: float = 4.0, highest: float = 10_000.0) -> tuple[float, list[Step]]:
    search, tried = Search(start, highest), list[Step]()
    while (step := search.following()) is not None:
        tried.append(step)
        search.saw(step, server(step), server(step) * step.rate)
    return search.capacity, tried


@given(st.floats(1, 2_000), st.floats(0.5, 64))
def test_found_rate_is_the_capacity_within_the_precision(capacity: float, start: float) -> None:
    found, tried = find(refusing(capacity), start)
    edge = capacity / GOAL
    assert edge / PRECISION <= found <= edge * 1.0001
    assert len(tried) <= 40


@given(st.floats(2, 2_000), st.floats(0.5, 3))
def test_growing_queue_is_not_taken_for_capacity(capacity: float, patience_s: float) -> None:
    found, tried = find(queueing(capacity, patience_s))
    flattered = max(step.rate for step in tried if not step.long and queueing(capacity, patience_s)(step) >= GOAL)
    assert capacity / 1.5 <= found <= capacity * (1 + patience_s / GOAL / SHORT_S / LONG) * 1.001
    assert found <= flattered
    assert sum(step.long for step in tried) <= 8


def test_server_without_capacity_ends_the_search_with_nothing() -> None:
    found, tried = find(lambda step: 0.0)
    assert found == 0
    assert min(step.rate for step in tried) >= LOWEST
    assert not any(step.long for step in tried)


def test_candidate_that_never_holds_ends_the_search() -> None:
    found, tried = find(lambda step: 0.0 if step.long else 1.0, highest=100)
    assert found == 0
    assert len(tried) < 30


def test_search_stops_at_the_highest_rate() -> None:
    found, tried = find(refusing(1e9), highest=100)
    assert found == 100
    assert max(step.rate for step in tried) == 100


@pytest.mark.parametrize("start", [1.0, 4.0])
def test_rates_double_until_the_first_failure(start: float) -> None:
    _, tried = find(refusing(100), start)
    assert [step.rate for step in tried[:3]] == [start, start * 2, start * 4]
