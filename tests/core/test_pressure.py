"""How much of what comes is refused, of late."""

from __future__ import annotations

import pytest

from penstock.core.pressure import HALF_LIFE_S, Pressure


def test_share_is_what_was_refused_once_many_came() -> None:
    pressure = Pressure()
    assert pressure.share() == 0.0
    for count in range(1_000):
        pressure.note(count % 4 != 0, 1.0)
    assert pressure.share() == pytest.approx(0.75, rel=0.01)


def test_one_refusal_is_no_pressure() -> None:
    pressure = Pressure()
    pressure.note(True, 1.0)
    assert pressure.share() <= 0.2


def test_it_is_forgotten() -> None:
    pressure = Pressure()
    for _ in range(1_000):
        pressure.note(True, 1.0)
    for count in range(1_000):
        pressure.note(False, 1.0 + 4 * HALF_LIFE_S + count * 1e-3)
    assert pressure.share() < 0.1


def test_what_was_admitted_and_not_served_counts_as_refused() -> None:
    pressure = Pressure()
    for _ in range(100):
        pressure.note(False, 1.0)
        pressure.withdrawn(1.0)
    assert pressure.share() == pytest.approx(100 / 104)
