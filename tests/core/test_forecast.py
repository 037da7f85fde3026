"""When a waiting request leaves: by what is ahead, what comes above it, and what other tenants take before its turn."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.playbook import call, flying

from penstock.core.classify import TaskClass
from penstock.core.fairness import Fairness
from penstock.core.flight import Flight
from penstock.core.forecast import RIVALS, Rival, solve, wait_s
from penstock.core.lane import Lane

PER_S = 10.0
NOW = 100.0


class Bench:
    """A lane whose queue drains by `PER_S` requests a second, and what waits and comes there."""

    def __init__(self, blocked: bool = True, own_s: float = 0.2) -> None:
        self.lane, self.books = Lane("m", []), Fairness()
        self.lane.order_by(self.books, {})
        self.lane.drain.waits(True, 0.0)
        self.ids = iter(range(1, 100_000))
        for count in range(int(NOW * PER_S)):
            self.lane.drain.departed(self.flight(own_s=own_s), blocked, count / PER_S)

    def flight(self, priority: int = 3, tenant: str = "", own_s: float = 0.2, key: float = 1.0, due: float = float("inf")) -> Flight:
        account = self.books.account(tenant, NOW) if tenant else None
        request = msgspec.structs.replace(call(next(self.ids)), tenant=tenant)
        task = TaskClass("usual", priority)
        return flying(request, task, self.lane, 0.0, own_s=own_s, priority=priority, account=account, key=key, rank=key, due=due)

    def waits(self, count: int, **facts: object) -> Flight:
        """So many more; the last of them."""
        for _ in range(count):
            self.lane.queue.push(last := self.flight(**facts))  # type: ignore[arg-type]
        return last

    def comes(self, per_s: float, **facts: object) -> None:
        for count in range(int(NOW * per_s)):
            self.lane.demands.add(self.flight(**facts), count / per_s)  # type: ignore[arg-type]

    def wait_s(self, flight: Flight) -> float:
        wait = wait_s(self.lane, flight, NOW)
        assert wait is not None
        return wait


def test_nothing_is_forecast_before_something_left() -> None:
    lane = Lane("m", [])
    flight = Flight(call(1), TaskClass("usual", 3), lane, 0.0)
    lane.queue.push(flight)
    assert wait_s(lane, flight, 0.0) is None


def test_wait_is_what_is_ahead_over_the_rate() -> None:
    bench = Bench()
    bench.waits(30)
    assert bench.wait_s(bench.waits(1, key=5.0)) == pytest.approx(3.1, rel=0.06)


def test_of_those_with_nearly_the_same_place_half_are_taken_to_go_first() -> None:
    bench = Bench()
    assert bench.wait_s(bench.waits(21)) == pytest.approx(1.1, rel=0.06)


def test_time_goes_by_prefill_where_prefill_limits() -> None:
    bench = Bench(blocked=False)
    bench.waits(1, own_s=8.0)
    assert bench.wait_s(bench.waits(1, key=5.0, own_s=0.0)) == pytest.approx(4.0, rel=0.06)


def test_what_waits_and_comes_above_goes_first() -> None:
    bench = Bench()
    bench.comes(5.0, priority=5)
    last = bench.waits(1)
    bench.waits(19, priority=5)
    assert bench.wait_s(last) == pytest.approx(20 / (PER_S - 5.0), rel=0.1)


def test_some_of_the_drain_is_left_whatever_comes_above() -> None:
    bench = Bench()
    bench.comes(3 * PER_S, priority=5)
    assert bench.wait_s(bench.waits(1)) == pytest.approx(1 / (0.1 * PER_S), rel=0.1)


def test_who_asks_for_less_than_its_share_goes_first_as_far_as_it_asks() -> None:
    bench = Bench()
    bench.comes(4.0, tenant="small")
    bench.books.account("large", NOW).counter = 1.0
    bench.waits(1, tenant="small")
    bench.waits(58, tenant="large")
    last = bench.waits(1, tenant="large", key=5.0)
    assert bench.wait_s(last) == pytest.approx((59 + 1) / (PER_S - 4.0), rel=0.1)


def test_who_has_nothing_waiting_now_is_not_forgotten() -> None:
    bench = Bench()
    bench.comes(4.0, tenant="small")
    bench.waits(1, tenant="other")
    bench.waits(59, tenant="large")
    last = bench.waits(1, tenant="large", key=5.0)
    assert bench.wait_s(last) > 1.5 * 60 / PER_S


def test_tenants_that_ask_for_more_than_there_is_take_turns() -> None:
    bench = Bench()
    for tenant in ("a", "b"):
        bench.comes(9.0, tenant=tenant)
    bench.waits(300, tenant="a")
    bench.waits(29, tenant="b")
    last = bench.waits(1, tenant="b", key=5.0)
    assert bench.wait_s(last) == pytest.approx(2 * 30 / PER_S, rel=0.1)


def test_how_fast_its_own_go_counts_as_much_as_the_equation() -> None:
    bench = Bench()
    bench.waits(10, tenant="a")
    bench.waits(29, tenant="b")
    last = bench.waits(1, tenant="b", key=5.0)
    before = bench.wait_s(last)
    for _ in range(100):
        bench.lane.turnouts.waits((3, "b"), 0.0)
    for count in range(50):
        bench.lane.turnouts.goes((3, "b"), 2.0 + 2.0 * count)
        bench.lane.turnouts.drop((3, "b"))
    assert bench.wait_s(last) == pytest.approx((before * 30 / 0.5) ** 0.5, rel=0.1)


def test_near_a_deadline_tenants_take_no_turns() -> None:
    bench = Bench()
    bench.waits(30, tenant="a", key=1.0)
    last = bench.waits(1, tenant="b", key=5.0, due=5.2)
    bench.lane.queue.bands[3].slack_s = -1.0
    assert bench.wait_s(last) == pytest.approx(3.1, rel=0.06)


def test_of_very_many_tenants_some_stand_for_all() -> None:
    bench = Bench()
    tenants = 2 * RIVALS
    for number in range(tenants):
        bench.comes(0.1, tenant=f"t{number}")
        bench.waits(1, tenant=f"t{number}")
    last = bench.waits(1, tenant="mine", key=5.0)
    for number in range(tenants):
        bench.books.account(f"t{number}", NOW).counter = -1e9
    assert bench.wait_s(last) > tenants / PER_S


RIVAL = st.tuples(st.floats(0, 50), st.floats(0, 3), st.floats(0, 50))


@given(st.floats(1e-3, 100), st.floats(0.1, 1.0), st.lists(RIVAL, max_size=12))
def test_solution_lies_between_nothing_and_all_of_the_others(first: float, left: float, others: list[Rival]) -> None:
    wait = solve(first, left, others)
    assert first / left * 0.999 <= wait <= (first + sum(most for _, _, most in others)) / left * 1.001


@given(st.floats(1e-3, 100), st.floats(0.1, 1.0), st.lists(RIVAL, max_size=6))
def test_solution_is_never_shorter_than_what_it_says_goes_first(first: float, left: float, others: list[Rival]) -> None:
    wait = solve(first, left, others)
    goes = first + sum(min(waits + comes * wait, most) for waits, comes, most in others)
    assert left * wait >= goes * 0.99 - 1e-6
