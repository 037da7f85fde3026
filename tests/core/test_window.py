"""Sliding windows."""

from __future__ import annotations

from itertools import accumulate
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.window import SLOTS, Slot, Window

STEPS = st.lists(st.tuples(st.floats(0, 30), st.integers(1, 60), st.sampled_from(("take", "take", "take", "part", "none"))), max_size=150)


@given(STEPS, st.sampled_from((0.5, 10.0, 60.0)))
def test_no_window_ever_holds_more_than_the_limit(steps: list[tuple[float, int, str]], length_s: float) -> None:
    window = Window(100, length_s)
    used: list[tuple[float, int]] = []
    now = 0.0
    for gap, amount, then in steps:
        now += gap * length_s / 60
        if window.wait_s(amount, now) > 0:
            continue
        slot = window.add(amount, now)
        kept = {"take": amount, "part": amount // 2, "none": 0}[then]
        window.give_back(slot, amount - kept)
        used.append((now, kept))
        assert sum(kept for at, kept in used if now - length_s < at <= now) <= 100


@given(STEPS)
def test_everything_given_back_leaves_nothing_used(steps: list[tuple[float, int, str]]) -> None:
    window = Window(10**9, 60.0)
    held: list[tuple[Slot, int]] = []
    now = 0.0
    for gap, amount, _ in steps:
        now += gap
        held.append((window.add(amount, now), amount))
        assert 0 <= window.used(now) <= sum(amount for _, amount in held)
    for slot, amount in held:
        window.give_back(slot, amount)
    assert window.used(now) == 0


@given(st.lists(st.floats(0, 0.4), max_size=1_000))
def test_memory_is_bounded_however_many_uses_there_are(gaps: list[float]) -> None:
    window = Window(10**9, 10.0)
    for now in accumulate(gaps):
        window.add(1, now)
        window.used(now)
        assert len(window._slots) <= SLOTS + 2


def test_a_saturated_limit_yields_99_of_100_and_never_101() -> None:
    """1,000 a minute for half an hour, from callers who try far more often."""
    window, taken = Window(1_000, 60.0), []
    for tick in range(1_800 * 50):
        now = tick / 50
        while window.wait_s(1, now) == 0:
            window.add(1, now)
            taken.append(now)
    assert 990 * 30 <= len(taken) <= 1_000 * 31
    first = 0
    for last, at in enumerate(taken):
        while taken[first] <= at - 60:
            first += 1
        assert last - first < 1_000


def test_uses_that_are_far_apart_leave_exactly_when_the_window_has_passed() -> None:
    window = Window(2, 60.0)
    window.add(1, 0.0)
    window.add(1, 30.0)
    assert window.wait_s(1, 40.0) == 20.0
    assert window.wait_s(2, 40.0) == 50.0
    assert window.reset_s(40.0) == 50.0
    assert window.wait_s(1, 60.0) == 0
    assert window.wait_s(2, 90.0) == 0 == window.reset_s(90.0)


@given(STEPS, st.integers(1, 100))
def test_the_wait_that_is_told_is_long_enough_and_no_longer_than_it_must(steps: list[tuple[float, int, str]], asked: int) -> None:
    window = Window(100, 60.0)
    now = 0.0
    for gap, amount, _ in steps:
        now += gap
        if window.wait_s(amount, now) == 0:
            window.add(amount, now)
    wait_s = window.wait_s(asked, now)
    assert wait_s <= 60.0 + 1e-9
    if wait_s > 0.001:
        assert window.wait_s(asked, now + wait_s * 0.999) > 0
    assert window.wait_s(asked, now + wait_s + 1e-6) == 0


def test_what_was_given_back_does_not_delay_the_reset() -> None:
    window = Window(5, 60.0)
    window.add(1, 0.0)
    window.give_back(window.add(4, 20.0), 4)
    assert (window.used(30.0), window.reset_s(30.0)) == (1, 30.0)


def test_what_is_larger_than_the_limit_never_fits() -> None:
    assert Window(10, 1.0).wait_s(11, 5.0) == inf


def test_what_has_left_the_window_cannot_be_given_back() -> None:
    window = Window(10, 1.0)
    slot = window.add(5, 0.0)
    window.add(3, 2.0)
    assert window.used(2.0) == 3
    window.give_back(slot, 5)
    assert window.used(2.0) == 3
