"""How many requests a second come at each moment: the bell, the ramp, a crowd."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from math import exp

import msgspec

GRID_S = 0.05
"""A rate is taken as straight between points this far apart."""

Rate = Callable[[float], float]


class Bell(msgspec.Struct, frozen=True, kw_only=True):
    """Quiet, then within `rise_s` of `at_s` the peak, which holds for `hold_s` and falls away towards `after`."""

    before: float
    peak: float
    after: float
    at_s: float
    rise_s: float
    hold_s: float
    fall_s: float

    def __call__(self, at_s: float) -> float:
        since = at_s - self.at_s
        if since < self.rise_s:
            return self.before + (self.peak - self.before) * max(0.0, since / self.rise_s)
        gone = max(0.0, since - self.rise_s - self.hold_s)
        return self.after + (self.peak - self.after) * exp(-gone / self.fall_s)


class Ramp(msgspec.Struct, frozen=True, kw_only=True):
    """From one rate to another in a straight line, then level."""

    first: float
    last: float
    until_s: float

    def __call__(self, at_s: float) -> float:
        return self.first + (self.last - self.first) * min(1.0, at_s / self.until_s)


class Crowd(msgspec.Struct, frozen=True, kw_only=True):
    """Within `warm_s` from a third of one rate to it, and from `at_s` on another."""

    before: float
    after: float
    warm_s: float
    at_s: float

    def __call__(self, at_s: float) -> float:
        return self.after if at_s >= self.at_s else self.before * min(1.0, 1 / 3 + 2 / 3 * at_s / self.warm_s)


class Clock:
    """Turns a count of expected requests into the moment by which so many are expected."""

    def __init__(self, rate: Rate, duration_s: float) -> None:
        points = [index * GRID_S for index in range(round(duration_s / GRID_S) + 1)]
        self.expected = [0.0]
        for start in points[:-1]:
            self.expected.append(self.expected[-1] + GRID_S * (rate(start) + rate(start + GRID_S)) / 2)
        self.total = self.expected[-1]

    def at(self, count: float) -> float:
        """`count` is from 0 to below `total`."""
        index = bisect_right(self.expected, count) - 1
        below, above = self.expected[index], self.expected[index + 1]
        return GRID_S * (index + (count - below) / (above - below))
