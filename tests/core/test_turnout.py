"""How fast each tenant's own requests go."""

from __future__ import annotations

import pytest

from penstock.core.turnout import GROUPS, Turnouts

KEY = (3, "tenant")


def test_wait_is_the_place_over_the_rate_at_which_its_own_go() -> None:
    turnouts = Turnouts()
    for _ in range(100):
        turnouts.waits(KEY, 0.0)
    for count in range(1, 41):
        turnouts.goes(KEY, count * 0.25)
        turnouts.drop(KEY)
    assert turnouts.wait_s(KEY, 20, 10.0) == pytest.approx(5.0, rel=0.1)


def test_standing_still_is_noticed_and_not_noted() -> None:
    turnouts = Turnouts()
    for _ in range(100):
        turnouts.waits(KEY, 0.0)
    for count in range(1, 41):
        turnouts.goes(KEY, count * 0.25)
        turnouts.drop(KEY)
    later = turnouts.wait_s(KEY, 20, 20.0)
    assert later is not None and later > 7.5
    assert turnouts.wait_s(KEY, 20, 10.0) == pytest.approx(5.0, rel=0.1)


def test_time_in_which_nothing_waits_does_not_count() -> None:
    turnouts = Turnouts()
    for start in (0.0, 100.0):
        for _ in range(20):
            turnouts.waits(KEY, start)
        for count in range(1, 21):
            turnouts.goes(KEY, start + count * 0.1)
            turnouts.drop(KEY)
    assert turnouts.wait_s(KEY, 10, 102.0) == pytest.approx(1.0, rel=0.1)


def test_what_has_not_been_seen_to_go_has_no_wait() -> None:
    turnouts = Turnouts()
    turnouts.waits(KEY, 0.0)
    assert turnouts.wait_s(KEY, 1, 0.0) is None
    turnouts.drop(KEY)
    turnouts.drop(KEY)
    assert turnouts.groups[KEY].waiting == 0


def test_groups_are_bounded() -> None:
    turnouts = Turnouts()
    for number in range(3 * GROUPS):
        turnouts.waits((3, f"t{number}"), 0.0)
    assert len(turnouts.groups) == GROUPS
    for number in range(GROUPS):
        turnouts.drop((3, f"t{number}"))
    turnouts.waits(KEY, 1.0)
    assert set(turnouts.groups) == {KEY}
