"""Shares of the dispatched work."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.floors import Floors


@settings(max_examples=50)
@given(st.floats(0.01, 0.5), st.lists(st.floats(10.0, 1_000.0), min_size=50, max_size=300))
def test_class_served_whenever_it_is_owed_keeps_its_share_to_within_a_request(share: float, costs: list[float]) -> None:
    floors = Floors({"low": share})
    floors.begins("low")
    done = total = 0.0
    for cost in costs:
        low = floors.owed("low") > 0
        floors.dispatched("low" if low else "high", 1, cost, 0.0)
        done, total = done + cost * low, total + cost
        assert done >= share * total - max(costs)
        assert done <= share * total + max(costs), "and no more than it while others wait"


def test_nothing_is_saved_up_while_nothing_waits() -> None:
    floors = Floors({"low": 0.5})
    for _ in range(100):
        floors.dispatched("high", 5, 100.0, 0.0)
    floors.begins("low")
    assert floors.owed("low") == 0.0


def test_what_was_given_beyond_the_share_is_not_held_against_it() -> None:
    floors = Floors({"low": 0.1})
    floors.begins("low")
    for _ in range(100):
        floors.dispatched("low", 1, 100.0, 0.0)
    for _ in range(30):
        floors.dispatched("high", 5, 100.0, 0.0)
    assert floors.owed("low") > 0


def test_shares_are_of_the_work_of_late() -> None:
    floors = Floors({"low": 0.5})
    floors.begins("low")
    floors.dispatched("high", 5, 1e6, 0.0)
    floors.dispatched("high", 5, 1.0, 3_600.0)
    assert floors.owed("low") < 1.0


def test_what_was_called_back_is_owed_again() -> None:
    floors = Floors({"low": 0.5})
    floors.begins("low")
    floors.dispatched("high", 5, 100.0, 0.0)
    owed = floors.owed("low")
    floors.dispatched("low", 1, 120.0, 0.0)
    assert not floors.owes("low", 1) and not floors.owes("high", 5)
    floors.returned("low", 1, 120.0)
    assert floors.owes("low", 1) and floors.owed("low") == owed
