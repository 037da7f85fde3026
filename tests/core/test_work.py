"""Sums of waiting work by key."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st
from tests.core.test_queue import flight

from penstock.core.supply import Supply
from penstock.core.work import SLOT_S, Work

WAITING = st.lists(st.tuples(st.floats(0.0, 60.0), st.floats(0.0, 1.0), st.booleans()), max_size=50)


@given(WAITING, st.floats(0.0, 60.0))
def test_sums_agree_with_a_list(waiting: list[tuple[float, float, bool]], key: float) -> None:
    work = Work()
    flights = [flight(id, key=at, own_s=own_s, due=at + own_s if due else inf) for id, (at, own_s, due) in enumerate(waiting)]
    for one in flights:
        work.add(one)
    before = [one for one in flights if one.key // SLOT_S <= key // SLOT_S]
    count, seconds = work.until(key)
    assert count == len(before) and abs(seconds - sum(one.own_s for one in before)) < 1e-6
    assert (work.count, work.promised) == (len(flights), sum(one.due < inf for one in flights))
    for one in flights:
        work.take(one)
    assert (work.count, work.seconds, work.promised, work.slots) == (0, 0.0, 0, {})


def test_only_promises_limit_the_slack_but_all_work_uses_it_up() -> None:
    work = Work()
    work.add(flight(1, key=1.0, own_s=3.0))
    assert work.slack(-inf, 0.0, Supply.flat(1.0, 0.0)) == inf
    work.add(flight(2, key=5.0, own_s=1.0, due=6.0))
    assert work.slack(-inf, 0.0, Supply.flat(1.0, 0.0)) == 2.0


def test_an_infinite_key_is_behind_all_work() -> None:
    work = Work()
    for id in range(3):
        work.add(flight(id, key=float(id), own_s=0.5))
    assert work.until(inf) == (3, 1.5) and work.until(-inf) == (0, 0.0)
