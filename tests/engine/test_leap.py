from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.leap import Leap


def leap(at: float, steps: int, first_s: float, slope_s: float) -> Leap:
    one = Leap()
    one.at = at
    one.plan(steps, first_s, slope_s)
    return one


leaps = st.builds(leap, st.floats(0, 1e5), st.integers(1, 50_000), st.floats(1e-3, 1.0), st.sampled_from([0.0, 1e-9, 1e-6, 1e-4]))


@given(leaps, st.floats(0, 1.1), st.integers(0, 100))
def test_a_step_is_done_when_its_time_has_come(one: Leap, share: float, exactly: int) -> None:
    for now in (one.at + share * (one.end - one.at), one.time(min(exactly, one.steps))):
        done = one.done(now)
        assert 0 <= done < one.steps
        assert done == 0 or one.time(done) <= now
        assert done == one.steps - 1 or one.time(done + 1) > now


@given(leaps, st.integers(0, 1_000))
def test_dropping_steps_leaves_the_times_of_the_rest(one: Leap, dropped: int) -> None:
    dropped = min(dropped, one.steps - 1)
    times = [one.time(step) for step in range(dropped, min(one.steps, dropped + 20))]
    one.drop(dropped)
    assert [one.time(step) for step in range(len(times))] == pytest.approx(times, rel=1e-9)


def test_an_idle_leap_ends_never() -> None:
    one = leap(1.0, 3, 0.5, 0.0)
    one.stop()
    assert (one.steps, one.end, one.past_s(1.25)) == (1, 1.5, 0.25)
    one.clear()
    assert (one.end, one.done(9.0), one.past_s(9.0)) == (inf, 0, 0.0)
