"""Counts by bucket, as Prometheus wants them, and quantiles read off them."""

from __future__ import annotations

from bisect import bisect_left
from math import nan


class Histogram:
    """`bounds` are inclusive upper bounds in rising order; a last, infinite one is implied."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    @property
    def count(self) -> int:
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """The value below which `share` of the observations lie, interpolated within its bucket; NaN when there are none."""
        rank, below = share * self.count, 0
        if rank <= 0:
            return nan
        for index, bound in enumerate(self.bounds):
            inside = self.counts[index]
            if below + inside >= rank:
                lower = self.bounds[index - 1] if index else 0.0
                return lower + (bound - lower) * (rank - below) / inside
            below += inside
        return self.bounds[-1]
