"""A lane's drain rate, and what it shows."""

from __future__ import annotations

import pytest
from tests.playbook import call

from penstock.core.classify import TaskClass
from penstock.core.flight import Flight
from penstock.core.lane import Lane


def test_drain_time_is_unknown_until_the_second_dispatch() -> None:
    lane = Lane("m", [])
    lane.drained(10.0)
    assert lane.drain_s == 0.0 and lane.snapshot(10.0).drained_per_s == 0.0
    lane.drained(10.5)
    assert lane.drain_s == 0.5 and lane.snapshot(10.5).drained_per_s == 2.0


def test_drain_time_follows_a_change_slowly() -> None:
    lane, now = Lane("m", []), 1.0
    for _ in range(50):
        now += 0.5
        lane.drained(now)
    lane.drained(now + 2.5)
    assert lane.drain_s == pytest.approx(0.6)
    for count in range(200):
        lane.drained(now + 5.0 + 2.5 * count)
    assert lane.drain_s == pytest.approx(2.5, rel=0.01)


def test_snapshot_counts_what_waits_by_class_and_tells_the_oldest() -> None:
    lane = Lane("m", [])
    assert (lane.snapshot(9.0).waiting, lane.snapshot(9.0).oldest_s, lane.snapshot(9.0).classes) == (0, 0.0, {})
    for id, (name, arrived) in enumerate((("x", 3.0), ("y", 1.0), ("x", 2.0))):
        lane.queue.push(Flight(call(id), TaskClass(name, 3), lane, arrived))
    seen = lane.snapshot(9.0)
    assert (seen.model, seen.waiting, seen.oldest_s, seen.classes) == ("m", 3, 8.0, {"x": 2, "y": 1})


def test_snapshot_tells_its_pool() -> None:
    assert (Lane("m", []).snapshot(0.0).pool, Lane("m", [], "big").snapshot(0.0).pool) == ("", "big")
