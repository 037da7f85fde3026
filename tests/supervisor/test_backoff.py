"""Waits between restarts."""

from __future__ import annotations

from penstock.supervisor.backoff import LONGEST_S, STEADY_S, Backoff


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff()
    assert [round(backoff.after(0.0), 1) for _ in range(8)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, LONGEST_S, LONGEST_S]


def test_a_steady_life_makes_the_next_wait_the_first_again() -> None:
    backoff = Backoff()
    for _ in range(4):
        backoff.after(1.0)
    assert backoff.after(STEADY_S) == 0.2
    assert backoff.after(0.0) == 0.4
