"""A weighted histogram over logarithmic buckets: quantiles within a few percent, adding in constant time, mergeable."""

from __future__ import annotations

from math import exp, log

_RATIO = 1.04
_PER_LOG = 1.0 / log(_RATIO)
_LEAST = 1e-7


class Histogram:
    """Positive values (seconds) with weights. A quantile is off by at most 2%, the width of half a bucket."""

    __slots__ = ("buckets", "count", "total")

    def __init__(self) -> None:
        self.buckets: dict[int, float] = {}
        self.count = 0.0
        """Sum of the weights."""
        self.total = 0.0
        """Sum of value x weight."""

    def add(self, value: float, weight: float = 1.0) -> None:
        bucket = int(log(value if value > _LEAST else _LEAST) * _PER_LOG + 1e6)
        self.buckets[bucket] = self.buckets.get(bucket, 0.0) + weight
        self.count += weight
        self.total += value * weight

    def add_series(self, first: float, slope: float, steps: int, weight: float) -> None:
        """Add first, first + slope, ... (`steps` values, slope >= 0), each with this weight, a bucket at a time."""
        last = first + slope * (steps - 1)
        if last <= first * _RATIO:  # one addition at the middle is as exact as the buckets are
            self.add((first + last) / 2, weight * steps)
            return
        done = 0
        while done < steps:
            value = first + slope * done
            until = min(steps, done + max(1, int(value * (_RATIO - 1.0) / slope)))
            self.add(value + slope * (until - 1 - done) / 2, weight * (until - done))
            done = until

    def merge(self, other: Histogram) -> None:
        for bucket, weight in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0.0) + weight
        self.count += other.count
        self.total += other.total

    def rows(self) -> list[tuple[float, float]]:
        """Middle of each bucket in use and its weight, ascending."""
        return [(exp((bucket - 1e6 + 0.5) / _PER_LOG), self.buckets[bucket]) for bucket in sorted(self.buckets)]

    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """The value below which `share` (0 to 1) of the weight lies; 0 when empty."""
        left, rows = share * self.count, self.rows()
        for value, weight in rows:
            left -= weight
            if left <= 0.0:
                return value
        return rows[-1][0] if rows else 0.0
