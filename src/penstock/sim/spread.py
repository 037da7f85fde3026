"""Means, percentiles and shares, rounded as they are reported. None where there is nothing to measure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from typing import Any


def spread(values: Sequence[float], percents: Iterable[int]) -> dict[str, Any]:
    """Mean and percentiles (nearest rank)."""
    ordered = sorted(values)
    result: dict[str, Any] = {"mean": ratio(sum(ordered), len(ordered))}
    for percent in percents:
        result[f"p{percent}"] = rounded(ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]) if ordered else None
    return result


def ratio(part: float, whole: float) -> float | None:
    return rounded(part / whole) if whole > 0 else None


def rounded(value: float) -> float:
    return round(value, 6)
