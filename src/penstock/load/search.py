"""The search for capacity: doubling until a step fails, then bisection, then longer steps that must hold.

A short step flatters: a queue may grow all through it and still meet the objective at its end. So the rate that short steps
found is only a candidate, and the capacity is what a step several times as long confirms.

Law: no I/O and no clock. It says which step to run next and is told what that showed.
"""

from __future__ import annotations

from typing import NamedTuple

GOAL = 0.95
"""Goodput a step must keep to pass."""
PRECISION = 1.08
"""Bisection ends when the lowest failed rate is within this factor of the highest passed one."""
LOWEST = 0.25
"""Requests a second; a server that fails this has no capacity worth a number."""
LONG = 5
"""A confirming step lasts this many short ones."""
_BACK_LEAST, _BACK_MOST = 1.04, 1.5
"""Factors by which a candidate that did not hold is lowered, towards the good answers a second that were seen."""


class Step(NamedTuple):
    rate: float
    """Requests a second."""
    long: bool = False


class Search:
    """Finds the highest rate whose goodput keeps the goal; it is `capacity` once `following` gives None."""

    def __init__(self, start: float, highest: float, goal: float = GOAL) -> None:
        self.capacity = 0.0
        self._passed = 0.0
        self._failed: float | None = None
        self._candidate = 0.0
        self._start, self._highest, self._goal = start, highest, goal

    def following(self) -> Step | None:
        """The step to run next; None when the search is over."""
        rate = self._short()
        if rate is not None:
            return Step(rate)
        if self.capacity or self._candidate < LOWEST:
            return None
        return Step(self._candidate, long=True)

    def _short(self) -> float | None:
        if self._failed is None:
            following = self._passed * 2 if self._passed else self._start
            return min(following, self._highest) if self._passed < self._highest else None
        if self._passed:
            return (self._passed * self._failed) ** 0.5 if self._failed / self._passed > PRECISION else None
        return self._failed / 4 if self._failed / 4 >= LOWEST else None

    def saw(self, step: Step, goodput: float, good_per_s: float) -> bool:
        """Takes a step's result; returns whether it passed."""
        good = goodput >= self._goal
        if step.long:
            if good:
                self.capacity = step.rate
            else:
                self._candidate = min(step.rate / _BACK_LEAST, max(step.rate / _BACK_MOST, good_per_s))
        elif good:
            self._passed = self._candidate = max(self._passed, step.rate)
        else:
            self._failed = step.rate if self._failed is None else min(self._failed, step.rate)
        return good
