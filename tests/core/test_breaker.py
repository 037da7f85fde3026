"""The breaker's table."""

from __future__ import annotations

from itertools import product
from math import inf

import pytest

from penstock.core.breaker import TABLE, Breaker, Result, State, result_of
from penstock.facts import Failure
from penstock.knobs import Knobs

KNOBS = Knobs(breaker_failures=3, breaker_successes=2, breaker_open_s=30.0)


def broken() -> Breaker:
    breaker = Breaker()
    for _ in range(3):
        breaker.note(Result.FAILURE, 0.0, KNOBS)
    return breaker


def test_table_is_total() -> None:
    assert set(TABLE) == set(product(State, Result))


def test_failures_in_a_row_open_it() -> None:
    breaker = broken()
    assert breaker.state is State.OPEN and not breaker.allows(0, 29.9)


def test_success_between_failures_starts_the_count_again() -> None:
    breaker = Breaker()
    for result in (Result.FAILURE, Result.FAILURE, Result.SUCCESS, Result.FAILURE, Result.FAILURE):
        breaker.note(result, 0.0, KNOBS)
    assert breaker.state is State.CLOSED and breaker.allows(9, 0.0)


@pytest.mark.parametrize("result", [Result.NEUTRAL])
def test_busy_and_4xx_never_open_it(result: Result) -> None:
    breaker = Breaker()
    for _ in range(100):
        breaker.note(result, 0.0, KNOBS)
    assert breaker.state is State.CLOSED


def test_after_its_time_one_request_at_a_time_tries() -> None:
    breaker = broken()
    assert breaker.allows(0, 30.0) and breaker.state is State.HALF_OPEN
    assert not breaker.allows(1, 30.0)


def test_two_successes_close_it_and_a_failure_opens_it_again() -> None:
    breaker = broken()
    breaker.allows(0, 30.0)
    breaker.note(Result.SUCCESS, 30.0, KNOBS)
    breaker.note(Result.NEUTRAL, 30.0, KNOBS)
    breaker.note(Result.FAILURE, 31.0, KNOBS)
    assert (breaker.state, breaker.reopens) == (State.OPEN, 61.0)
    breaker.allows(0, 61.0)
    breaker.note(Result.SUCCESS, 61.0, KNOBS)
    breaker.note(Result.SUCCESS, 61.0, KNOBS)
    assert (breaker.state, breaker.reopens) == (State.CLOSED, inf)


def test_late_answers_do_not_move_an_open_breaker() -> None:
    breaker = broken()
    for result in Result:
        breaker.note(result, 1.0, KNOBS)
    assert breaker.state is State.OPEN and breaker.reopens == 30.0


def test_who_is_full_or_will_not_go_on_is_not_broken() -> None:
    assert [failure for failure in Failure if result_of(failure) is Result.NEUTRAL] == [Failure.BUSY, Failure.REFUSED]
