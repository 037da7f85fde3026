"""How fast a queue drains, by requests and by prefill."""

from __future__ import annotations

import random
from statistics import pstdev

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
    assert Drain().steady == (0.0, 0.0) and Drain().rate == 0.0
    assert (Drain().class_rate("usual"), Drain().total_rate) == (0.0, 0.0)


def test_steady_rate_is_by_requests_and_by_their_prefill() -> None:
    drain, _ = drained(10.0, own_s=0.2)
    assert drain.rate == pytest.approx(10.0, rel=0.06)
    assert drain.steady == pytest.approx((10.0, 2.0), rel=0.06)


def test_steady_rate_scatters_less_and_still_follows_a_change_at_once() -> None:
    draw, drain, now = random.Random(1), Drain(), 0.0
    drain.waits(True, now)
    short, steady = [], []
    for _ in range(4_000):
        now += draw.expovariate(10.0)
        drain.departed(flight(), True, now)
        if now > 60.0:
            short.append(drain.rate)
            steady.append(drain.steady[0])
    assert pstdev(steady) < 0.8 * pstdev(short)
    for _ in range(100):
        now += 0.4
        drain.departed(flight(), True, now)
    assert drain.steady[0] == pytest.approx(2.5, rel=0.15)


def test_rate_falls_while_nothing_leaves_and_more_comes() -> None:
    drain, now = drained(10.0)
    for _ in range(100):
        now += 0.3
        drain.waits(True, now)
    assert drain.rate < 1.0 and drain.steady[0] < 1.0


def test_rate_is_kept_while_nothing_waits_and_followed_when_it_changes() -> None:
    drain, now = drained(10.0)
    drain.waits(False, now)
    now += 300.0
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


def test_first_tokens_time_is_the_middle_of_them() -> None:
    drain, draw = Drain(), random.Random(1)
    for _ in range(400):
        drain.first_token(0.5 * draw.uniform(0.9, 1.1) if draw.random() < 0.7 else 20.0)
    assert drain.first_s == pytest.approx(0.5, rel=0.25)
