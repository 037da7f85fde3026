"""How fast a queue drains, by requests and by prefill, and what is left of that for a priority."""

from __future__ import annotations

import pytest
from tests.playbook import call, flying

from penstock.core.classify import TaskClass
from penstock.core.drain import CLASSES, Drain
from penstock.core.flight import Flight
from penstock.core.lane import Lane

LANE = Lane("m", [])


def flight(priority: int = 3, own_s: float = 0.5, name: str = "usual") -> Flight:
    return flying(call(1), TaskClass(name, priority), LANE, 0.0, own_s=own_s, priority=priority)


def drained(per_s: float, seconds: float = 20.0, blocked: bool = True, own_s: float = 0.5) -> tuple[Drain, float]:
    drain, now = Drain(), 100.0
    drain.waits(True, now)
    for _ in range(int(per_s * seconds)):
        now += 1 / per_s
        drain.departed(flight(own_s=own_s), blocked, now)
    return drain, now


def test_nothing_is_known_before_something_was_drained() -> None:
    assert Drain().wait_s(3, 10, 1.0) is None and Drain().rate == 0.0
    assert (Drain().class_rate("usual"), Drain().total_rate) == (0.0, 0.0)


def test_wait_is_what_is_ahead_over_the_rate() -> None:
    drain, _ = drained(10.0)
    assert drain.rate == pytest.approx(10.0, rel=0.06)
    assert drain.wait_s(3, 30, 0.0) == pytest.approx(3.0, rel=0.06)


def test_time_goes_by_prefill_where_prefill_limits() -> None:
    drain, _ = drained(10.0, blocked=False, own_s=0.2)
    assert drain.wait_s(3, 1, 8.0) == pytest.approx(4.0, rel=0.06)


def test_time_goes_by_requests_where_slots_limit() -> None:
    drain, _ = drained(10.0, seconds=60.0, own_s=0.2)
    assert drain.wait_s(3, 20, 1e-3) == pytest.approx(2.0, rel=0.06)


def test_what_comes_above_is_served_before() -> None:
    drain, now = drained(10.0)
    for _ in range(200):
        now += 0.2
        drain.came(flight(priority=5), now)
        for _ in range(2):
            drain.departed(flight(), True, now)
    assert drain.wait_s(3, 10, 0.0) == pytest.approx(2.0, rel=0.1)
    assert drain.wait_s(5, 10, 0.0) == pytest.approx(1.0, rel=0.1)


def test_rate_is_kept_while_nothing_waits_and_followed_when_it_changes() -> None:
    drain, now = drained(10.0)
    drain.waits(False, now)
    now += 300.0
    drain.came(flight(), now)
    assert drain.rate == pytest.approx(10.0, rel=0.06)
    drain.waits(True, now)
    for _ in range(100):
        now += 0.5
        drain.departed(flight(), True, now)
    assert drain.rate == pytest.approx(2.0, rel=0.1)


def test_each_class_has_its_rate_and_their_number_is_bounded() -> None:
    drain, now = Drain(), 100.0
    for count in range(400):
        now += 0.1
        drain.forwarded(flight(name="many"), now)
        if count % 4 == 0:
            drain.forwarded(flight(name="few"), now)
    assert drain.class_rate("many") == pytest.approx(10.0, rel=0.1)
    assert drain.class_rate("few") == pytest.approx(2.5, rel=0.2)
    assert drain.total_rate == pytest.approx(12.5, rel=0.1) and drain.class_rate("none") == 0.0
    for number in range(2 * CLASSES):
        drain.forwarded(flight(name=str(number)), now)
    assert len(drain.served) == CLASSES


def test_first_tokens_time_is_a_running_mean() -> None:
    drain = Drain()
    for _ in range(100):
        drain.first_token(0.5)
    drain.first_token(10.0)
    assert 0.5 < drain.first_s < 1.0
