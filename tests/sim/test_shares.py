"""Who was served least of what was due, against shares worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.sim.arrival import Arrival
from penstock.sim.shares import FEW, by_tenant, level, shares
from penstock.sim.world import Trip


def trips(tenant: str, count: int) -> list[Trip]:
    """Of 100 weighted tokens each."""
    return [Trip(Arrival(0.0, 80, 10, tenant=tenant)) for _ in range(count)]


def good(*some: list[Trip]) -> set[int]:
    return {id(trip) for one in some for trip in one}


def test_who_asked_for_little_is_due_all_of_it() -> None:
    small, large = trips("small", FEW), trips("large", 10 * FEW)
    found = shares(by_tenant(small + large), good(small[: FEW // 2], large[: 5 * FEW]))
    assert found == {"groups": 2, "least": "small", "requests": FEW, "share": 0.5}


def test_who_asked_for_more_is_due_no_more_than_the_others() -> None:
    one, two = trips("one", 4 * FEW), trips("two", 8 * FEW)
    found = shares(by_tenant(one + two), good(one[:FEW], two[: 3 * FEW]))
    assert found is not None and (found["least"], found["share"]) == ("one", 0.5)


def test_few_requests_say_nothing() -> None:
    few, many = trips("few", FEW - 1), trips("many", FEW)
    found = shares(by_tenant(few + many), good(many))
    assert found is not None and found["least"] == "many"
    assert shares(by_tenant(few + trips("other", 1)), good(few)) is None


def test_one_group_and_nothing_served_have_no_shares() -> None:
    assert shares({"a": trips("a", FEW)}, set()) is None
    assert shares(by_tenant(trips("a", FEW) + trips("b", FEW)), set()) is None


@given(st.lists(st.integers(1, 1_000), min_size=1), st.floats(0.01, 1.0))
def test_what_is_due_to_all_is_what_was_served(asked: list[int], part: float) -> None:
    served = part * sum(asked)
    most = level([float(one) for one in asked], served)
    assert sum(min(one, most) for one in asked) == pytest.approx(served)
