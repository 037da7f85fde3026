"""The search for capacity: doubling until a step fails, then bisection.

Law: no I/O and no clock. It says which rate to try next and is told the goodput that was seen.
"""

from __future__ import annotations

GOAL = 0.95
"""Goodput a step must keep to pass."""
PRECISION = 1.08
"""The search ends when the lowest failed rate is within this factor of the highest passed one."""
LOWEST = 0.25
"""Requests a second; a server that fails this has no capacity worth a number."""


class Search:
    """Finds the highest rate whose goodput keeps the goal."""

    def __init__(self, start: float, highest: float, goal: float = GOAL) -> None:
        self.passed = 0.0
        self.failed: float | None = None
        self._start, self._highest, self._goal = start, highest, goal

    def rate(self) -> float | None:
        """The next rate to try, in requests a second; None when the search is over."""
        if self.failed is None:
            following = self.passed * 2 if self.passed else self._start
            return min(following, self._highest) if self.passed < self._highest else None
        if self.passed:
            return (self.passed * self.failed) ** 0.5 if self.failed / self.passed > PRECISION else None
        return self.failed / 4 if self.failed / 4 >= LOWEST else None

    def saw(self, rate: float, goodput: float) -> bool:
        """Takes a step's result; returns whether it passed."""
        good = goodput >= self._goal
        if good:
            self.passed = max(self.passed, rate)
        else:
            self.failed = rate if self.failed is None else min(self.failed, rate)
        return good
