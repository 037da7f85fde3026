"""A node's breaker: a transition table over three kinds of result.

Neutral results (4xx, 429, busy) count neither way: a fleet that says "full" is not a fleet that is broken.
"""

from __future__ import annotations

from enum import StrEnum
from math import inf

from penstock.facts import Failure
from penstock.knobs import Knobs


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Result(StrEnum):
    SUCCESS = "success"
    NEUTRAL = "neutral"
    FAILURE = "failure"


class Step(StrEnum):
    """What a result does in a state."""

    CLEAR = "clear"
    COUNT = "count"
    OPEN = "open"
    CREDIT = "credit"
    NOTHING = "nothing"


TABLE: dict[tuple[State, Result], Step] = {
    (State.CLOSED, Result.SUCCESS): Step.CLEAR,
    (State.CLOSED, Result.NEUTRAL): Step.NOTHING,
    (State.CLOSED, Result.FAILURE): Step.COUNT,
    (State.HALF_OPEN, Result.SUCCESS): Step.CREDIT,
    (State.HALF_OPEN, Result.NEUTRAL): Step.NOTHING,
    (State.HALF_OPEN, Result.FAILURE): Step.OPEN,
    # Answers of requests sent before it opened change nothing.
    (State.OPEN, Result.SUCCESS): Step.NOTHING,
    (State.OPEN, Result.NEUTRAL): Step.NOTHING,
    (State.OPEN, Result.FAILURE): Step.NOTHING,
}


def result_of(failure: Failure) -> Result:
    return Result.NEUTRAL if failure in (Failure.BUSY, Failure.REFUSED) else Result.FAILURE


class Breaker:
    """Closed until `breaker_failures` failures in a row; open for `breaker_open_s`; then one request at a time may try."""

    __slots__ = ("count", "reopens", "state")

    def __init__(self) -> None:
        self.state = State.CLOSED
        self.count = 0
        self.reopens = inf

    def allows(self, running: int, now: float) -> bool:
        """Whether a node with `running` requests may be given another. Turns half-open when its time has come."""
        if self.state is State.CLOSED:
            return True
        if self.state is State.OPEN:
            if now < self.reopens:
                return False
            self.state, self.count = State.HALF_OPEN, 0
        return running == 0

    def note(self, result: Result, now: float, knobs: Knobs) -> None:
        step = TABLE[self.state, result]
        if step is Step.CLEAR:
            self.count = 0
        elif step is Step.COUNT:
            self.count += 1
            if self.count >= knobs.breaker_failures:
                self.open(now, knobs)
        elif step is Step.OPEN:
            self.open(now, knobs)
        elif step is Step.CREDIT:
            self.count += 1
            if self.count >= knobs.breaker_successes:
                self.close()

    def open(self, now: float, knobs: Knobs) -> None:
        self.state, self.count, self.reopens = State.OPEN, 0, now + knobs.breaker_open_s

    def close(self) -> None:
        self.state, self.count, self.reopens = State.CLOSED, 0, inf
