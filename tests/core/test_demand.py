"""What comes in a second, by priority and tenant."""

from __future__ import annotations

import pytest
from tests.playbook import call, flying

from penstock.core.classify import TaskClass
from penstock.core.demand import TENANTS, Demands
from penstock.core.fairness import Account
from penstock.core.flight import Flight
from penstock.core.lane import Lane

LANE = Lane("m", [])
A, B = Account("a", 1), Account("b", 2)


def flight(priority: int = 3, account: Account | None = None, own_s: float = 0.5) -> Flight:
    return flying(call(1), TaskClass("usual", priority), LANE, 0.0, own_s=own_s, priority=priority, account=account)


def test_what_comes_above_is_of_all_higher_priorities() -> None:
    demands = Demands()
    for count in range(1_000):
        demands.add(flight(5, own_s=0.1), 0.1 * count)
        if not count % 2:
            demands.add(flight(4, own_s=1.0), 0.1 * count)
        demands.add(flight(3), 0.1 * count)
    assert demands.above(3, 100.0) == pytest.approx((15.0, 6.0), rel=0.05)
    assert demands.above(4, 100.0) == pytest.approx((10.0, 1.0), rel=0.05)
    assert demands.above(5, 100.0) == (0.0, 0.0)


def test_tenants_of_a_priority_are_told_apart() -> None:
    demands = Demands()
    for count in range(1_000):
        demands.add(flight(3, A), 0.1 * count)
        if not count % 4:
            demands.add(flight(3, B), 0.1 * count)
    assert demands.tenants[3][A].rates(100.0) == pytest.approx((10.0, 5.0), rel=0.05)
    assert demands.tenants[3][B].rates(100.0) == pytest.approx((2.5, 1.25), rel=0.05)


def test_what_came_is_forgotten() -> None:
    demands = Demands()
    for count in range(1_000):
        demands.add(flight(5), 0.1 * count)
    assert demands.above(3, 100.0 + 300.0)[0] < 0.1


def test_a_few_requests_at_once_are_no_rate_yet() -> None:
    demands = Demands()
    for _ in range(4):
        demands.add(flight(5), 10.0)
    assert demands.above(3, 10.0) == (2.0, 1.0)


def test_number_of_tenants_is_bounded_and_idle_ones_make_room() -> None:
    demands = Demands()
    for number in range(2 * TENANTS):
        demands.add(flight(3, Account(str(number), number)), 0.0)
    assert len(demands.tenants[3]) == TENANTS
    demands.add(flight(3, A), 1_000.0)
    assert list(demands.tenants[3]) == [A]
