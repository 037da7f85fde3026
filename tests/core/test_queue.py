"""The queue of one lane, against a plain list."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st
from tests.playbook import call, flying

from penstock.core.classify import DEFAULT
from penstock.core.flight import Flight
from penstock.core.lane import Lane
from penstock.core.queue import Queue
from penstock.core.supply import Supply

LANE = Lane("m", [])


def flight(id: int, priority: int = 3, key: float = 0.0, own_s: float = 0.1, expires: float = inf, due: float = inf) -> Flight:
    return flying(call(id), DEFAULT, LANE, 0.0, due=due, priority=priority, key=key, rank=key, own_s=own_s, expires=expires)


STEPS = st.tuples(st.sampled_from("push pop expire remove".split()), st.integers(1, 5), st.floats(0, 60), st.floats(0, 60))


@given(st.lists(STEPS, max_size=200))
def test_queue_agrees_with_a_sorted_list(steps: list[tuple[str, int, float, float]]) -> None:
    queue, alive = Queue(), list[Flight]()
    for id, (step, priority, key, when) in enumerate(steps):
        if step == "push":
            alive.append(flight(id, priority, key, expires=when))
            queue.push(alive[-1])
        elif step == "pop":
            got = queue.pop()
            expected = min(alive, key=lambda f: (-f.priority, f.key, f.request.id), default=None)
            assert got is expected
            if got is not None:
                queue.remove(got)
                alive.remove(got)
        elif step == "expire":
            while (gone := queue.pop_expired(when)) is not None:
                alive.remove(gone)
            assert all(f.expires > when for f in alive)
        elif alive:
            queue.remove(alive.pop(int(key) % len(alive)))
        assert len(queue) == len(alive) == len(queue.flights())
        assert queue.next_expiry() == min((f.expires for f in alive), default=inf)
        requests, seconds = queue.ahead(0, 1e6)
        assert requests == len(alive) and abs(seconds - 0.1 * len(alive)) < 1e-6
        assert len(queue.heap) <= 2 * len(alive) + 65


def test_flight_put_back_is_popped_again() -> None:
    queue = Queue()
    queue.push(flight(1))
    first = queue.pop()
    assert first is not None and queue.pop() is None
    queue.put_back(first)
    assert queue.pop() is first


def test_requeued_flight_is_popped_once() -> None:
    queue, one = Queue(), flight(1)
    queue.push(one)
    queue.remove(one)
    queue.push(one)
    assert queue.pop() is one
    queue.remove(one)
    assert queue.pop() is None and len(queue) == 0


def test_work_ahead_counts_higher_priorities_and_earlier_keys() -> None:
    queue = Queue()
    for id, (priority, key) in enumerate([(5, 50.0), (3, 1.0), (3, 9.0), (1, 0.0)]):
        queue.push(flight(id, priority, key, own_s=1.0))
    assert queue.ahead(3, 5.0) == (2, 2.0)
    assert queue.ahead(5, 5.0) == (0, 0.0)


def test_slack_is_the_least_over_later_slots() -> None:
    queue = Queue()
    queue.push(flight(1, key=2.0, own_s=1.0, due=3.0))
    queue.push(flight(2, key=4.0, own_s=2.5, due=6.5))
    assert queue.slack_after(3, 0.0, 0.5, Supply.flat(1.0, 0.0)) == 1.5
    assert queue.slack_after(3, 2.0, 3.5, Supply.flat(1.0, 0.0)) == 0.5
    assert queue.slack_after(3, 2.0, 1.0, Supply.flat(2.0, 1.0)) == 5.0
    assert queue.slack_after(3, 9.0, 0.0, Supply.flat(1.0, 0.0)) == inf
    assert queue.slack_after(4, 0.0, 0.0, Supply.flat(1.0, 0.0)) == inf
    assert queue.work_s() == 3.5
