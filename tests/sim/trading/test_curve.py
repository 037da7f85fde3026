"""Rates over time, and the moments at which so many requests are expected."""

from __future__ import annotations

import pytest

from penstock.sim.trading.curve import Bell, Clock, Crowd, Ramp


def test_bell_rises_at_once_holds_and_falls_away() -> None:
    bell = Bell(before=4.0, peak=12.0, after=6.0, at_s=6.0, rise_s=1.0, hold_s=10.0, fall_s=3.0)
    assert [bell(at) for at in (0.0, 6.0, 6.5, 7.0, 17.0)] == [4.0, 4.0, 8.0, 12.0, 12.0]
    assert 8.0 < bell(20.0) < 8.3 and bell(60.0) == pytest.approx(6.0)


def test_ramp_and_crowd_end_level() -> None:
    ramp = Ramp(first=1.0, last=5.0, until_s=4.0)
    assert [ramp(at) for at in (0.0, 2.0, 4.0, 9.0)] == [1.0, 3.0, 5.0, 5.0]
    crowd = Crowd(before=3.0, after=9.0, warm_s=10.0, at_s=20.0)
    assert [crowd(at) for at in (0.0, 10.0, 19.9, 20.0)] == pytest.approx([1.0, 3.0, 3.0, 9.0])


def test_clock_turns_counts_into_moments() -> None:
    clock = Clock(lambda at: 100.0, 10.0)
    assert clock.total == pytest.approx(1_000.0)
    assert [clock.at(count) for count in (0.0, 250.0, 999.0)] == pytest.approx([0.0, 2.5, 9.99])
    rising = Clock(lambda at: 2.0 * at, 10.0)
    assert rising.at(25.0) == pytest.approx(5.0, abs=0.06)
