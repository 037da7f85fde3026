"""Gaps between arrivals, of mean 1, Gamma or Weibull: bursty below shape 1, Poisson at 1, regular above."""

from __future__ import annotations

from math import gamma, inf, sqrt
from random import Random


def gaps(kind: str, shape: float, count: int, rng: Random) -> list[float]:
    """`count` gaps with mean 1. `kind` is Gamma or Weibull."""
    if kind == "Weibull":
        scale = 1.0 / _weibull_mean(shape)
        return [rng.weibullvariate(scale, shape) for _ in range(count)]
    return [rng.gammavariate(shape, 1.0 / shape) for _ in range(count)]


def shape_of(kind: str, cv: float) -> float:
    """The shape whose gaps have this coefficient of variation."""
    if kind == "Gamma":
        return 1.0 / cv**2
    low, high = 0.1, 50.0
    for _ in range(60):
        middle = sqrt(low * high)
        low, high = (middle, high) if weibull_cv(middle) > cv else (low, middle)
    return low


def weibull_cv(shape: float) -> float:
    """Falls from 429 at shape 0.1 to 0.03 at 50."""
    return sqrt(max(0.0, gamma(1.0 + 2.0 / shape) / gamma(1.0 + 1.0 / shape) ** 2 - 1.0))


def _weibull_mean(shape: float) -> float:
    try:
        return gamma(1.0 + 1.0 / shape)
    except OverflowError:
        return inf
