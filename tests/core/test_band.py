"""A queue of several tenants, priorities and deadlines, against plain lists."""

from __future__ import annotations

from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.playbook import call, flying

from penstock.core.classify import DEFAULT, TaskClass
from penstock.core.fairness import Fairness
from penstock.core.flight import Flight
from penstock.core.lane import Lane
from penstock.core.queue import Queue
from penstock.core.supply import Supply

LANE = Lane("m", [])
LOW = TaskClass("low", 1, floor=0.5)


class Bench:
    """A queue with its books, and flights made for it."""

    def __init__(self, shares: dict[str, float] | None = None) -> None:
        self.books = Fairness()
        self.queue = Queue(self.books, shares)
        self.made = 0

    def push(self, tenant: str = "a", key: float = 0.0, *, task: TaskClass = DEFAULT, own_s: float = 0.1, due: float = inf) -> Flight:
        self.made += 1
        account = self.books.account(tenant, 0.0)
        self.books.enter(account, 0.0)
        one = flying(call(self.made), task, LANE, 0.0, due=due, priority=task.priority, key=key, rank=key, account=account, own_s=own_s)
        one.expires = inf
        self.queue.push(one)
        return one

    def serve(self, tokens: float = 100.0) -> Flight | None:
        """Dispatch the next one."""
        flight = self.queue.pop()
        if flight is not None:
            self.queue.remove(flight)
            assert flight.account is not None
            self.books.charge(flight.account, tokens, 0.0)
            self.queue.dispatched(flight, tokens, 0.0)
        return flight


def test_tenants_take_turns_whoever_came_first() -> None:
    bench = Bench()
    waiting = [bench.push("hog", float(number)) for number in range(4)] + [bench.push("b", 8.0), bench.push("b", 9.0)]
    served = [bench.serve() for _ in range(6)]
    assert [one and one.request.id for one in served] == [waiting[index].request.id for index in (0, 4, 1, 5, 2, 3)]


def test_one_tenant_is_served_by_its_keys_alone() -> None:
    bench = Bench()
    for key in (3.0, 1.0, 2.0):
        bench.push("a", key)
    assert not bench.queue.spread
    assert [one.key for one in iter(bench.serve, None) if one] == [1.0, 2.0, 3.0]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 5), st.floats(0.0, 60.0)), min_size=1, max_size=60))
def test_one_tenant_of_several_priorities_is_served_as_by_deadline(waiting: list[tuple[int, float]]) -> None:
    bench = Bench()
    flights = [bench.push("a", key, task=TaskClass("x", priority), due=key + 0.1) for priority, key in waiting]
    expected = sorted(flights, key=lambda one: (-one.priority, one.key, one.request.id))
    assert [one.request.id for one in iter(bench.serve, None) if one] == [one.request.id for one in expected]


def test_request_that_would_start_too_late_goes_before_its_turn() -> None:
    bench = Bench()
    for number in range(3):
        bench.push("a", 50.0 + number, due=60.0)
    pressed = bench.push("b", 1.0, due=1.2)
    bench.books.charge(bench.books.account("b", 0.0), 1e6, 0.0)
    bench.queue.looks_stale(0.95)
    bench.queue.look(Supply.flat(1.0, 0.95))
    assert bench.serve() is pressed


def test_with_slack_the_turn_goes_first_and_uses_it_up() -> None:
    bench = Bench()
    turns = [bench.push("a", 50.0 + number, own_s=0.3, due=60.0) for number in range(3)]
    pressed = bench.push("b", 1.0, due=1.2)
    bench.books.charge(bench.books.account("b", 0.0), 1e6, 0.0)
    bench.queue.looks_stale(0.2)
    bench.queue.look(Supply.flat(1.0, 0.2))
    assert [bench.serve(), bench.serve()] == turns[:2], "0.8 s of slack have room for two turns of 0.3 s"
    assert bench.serve() is pressed


def test_a_tenant_passed_over_gives_the_others_their_turn() -> None:
    bench = Bench()
    first, second = bench.push("a", 1.0), bench.push("b", 2.0)
    bench.push("a", 3.0)
    got = bench.queue.pop()
    assert got is first
    bench.queue.pass_over(first)
    assert bench.queue.pop() is second and bench.queue.pop() is None
    bench.queue.put_back(first)
    bench.queue.put_back(second)
    assert bench.queue.pop() is first


def test_class_with_a_floor_is_served_beside_a_higher_priority() -> None:
    bench = Bench({"low": 0.5})
    for number in range(20):
        bench.push("a", float(number), task=TaskClass("high", 5))
        bench.push("a", float(number), task=LOW)
    names = [one.task.name for one in (bench.serve() for _ in range(20)) if one]
    assert 9 <= names.count("low") <= 11


def test_floor_of_a_class_with_nothing_waiting_costs_the_others_nothing() -> None:
    bench = Bench({"low": 0.5})
    for number in range(5):
        bench.push("a", float(number), task=TaskClass("high", 5))
    assert [one.task.name for one in iter(bench.serve, None) if one] == ["high"] * 5


def test_low_priority_that_waits_for_long_without_a_deadline_gets_a_little() -> None:
    bench = Bench()
    for number in range(300):
        bench.push("a", float(number), task=TaskClass("high", 5))
    patient = bench.push("b", 60.0, task=TaskClass("low", 1))
    bench.queue.looks_stale(10.0)
    early = [bench.serve() for _ in range(100)]
    bench.queue.looks_stale(100.0)
    late = [bench.serve() for _ in range(150)]
    assert patient not in early and patient in late


def test_place_counts_the_turns_of_the_others() -> None:
    bench = Bench()
    for number in range(100):
        bench.push("hog", float(number))
    mine = [bench.push("b", 100.0 + number) for number in range(3)]
    places = [bench.queue.place(one, 0.0)[0] for one in mine]
    assert places[0] <= 3 and places[2] <= 8, "not behind the hundred"
    last = max(bench.queue.flights(), key=lambda one: (one.account is mine[0].account, one.key) if one not in mine else (False, -1.0))
    assert bench.queue.place(last, 0.0)[0] >= 95


OPERATIONS = st.lists(
    st.tuples(st.sampled_from("push push push pop look remove".split()), st.sampled_from("abc"), st.integers(1, 3), st.floats(0.0, 20.0)),
    max_size=150,
)


@settings(max_examples=100)
@given(OPERATIONS)
def test_whatever_happens_each_waiting_request_is_popped_once(operations: list[tuple[str, str, int, float]]) -> None:
    bench = Bench({"p1": 0.2})
    alive: list[Flight] = []
    for step, tenant, priority, key in operations:
        if step == "push":
            task = TaskClass(f"p{priority}", priority, floor=0.2 if priority == 1 else 0.0)
            alive.append(bench.push(tenant, key, task=task, due=key + 0.1 if key > 5 else inf))
        elif step == "pop":
            served = bench.serve(1.0 + key)
            assert (served is None) == (not alive)
            if served is not None:
                alive.remove(served)
        elif step == "remove" and alive:
            bench.queue.remove(alive.pop(int(key) % len(alive)))
        elif step == "look":
            bench.queue.looks_stale(key)
            bench.queue.look(Supply.flat(1.0, key))
            seen = list(iter(bench.queue.pop, None))
            assert {id(one) for one in seen} == {id(one) for one in alive} and len(seen) == len(alive)
            for one in seen:
                bench.queue.put_back(one)
        assert len(bench.queue) == len(alive) == len(bench.queue.flights())
        assert abs(bench.queue.work_s() - 0.1 * len(alive)) < 1e-6
    assert {id(one) for one in iter(bench.serve, None)} == {id(one) for one in alive}
    assert not bench.queue.spread and not bench.queue.work
