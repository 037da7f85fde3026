"""What an engine's metrics page says of its load, by the names of its dialect.

Telemetry is input: what is not a finite number inside sane bounds is dropped, and what is dropped is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from math import isfinite, nan
from typing import TypeVar

from penstock.facts import Signals
from penstock.wire import dialect

Number = TypeVar("Number", int, float)

COUNT_MAX = 1_000_000.0
"""No engine runs or queues more requests than that."""
ROUNDING = 1.01
"""A usage a little above 1 is 1; far above it is nonsense."""


_SERIES = re.compile(rb"(?:\{([^\n]*)\})?[ \t]+([^\s]+)").match
_COPY = re.compile(rb'(?:^|,)\s*(?:tp|pp)_rank="(?!0")').search
"""Ranks of one tensor- or pipeline-parallel group report the same requests: the first speaks for all."""


def read(text: bytes, spoken: dialect.Dialect | None = None) -> Signals:
    """Signals in a metrics page (Prometheus text format 0.0.4); None for what it does not say. Not told whose page it is, it finds out.

    Counts are summed over labelled series (models, data-parallel ranks), the usage is their mean.
    """
    spoken = spoken or dialect.by_metrics(text)
    if spoken is None:
        return Signals()
    text, prefix, gauges = b"\n" + text, spoken.prefix, spoken.gauges
    return Signals(
        _first(_total(text, prefix + name) for name in gauges.running),
        _first(_total(text, prefix + name) for name in gauges.waiting),
        _first(_usage(text, prefix + name) for name in gauges.kv_usage),
    )


def _first(found: Iterable[Number | None]) -> Number | None:
    return next((value for value in found if value is not None), None)


def _total(text: bytes, name: bytes) -> int | None:
    values = [value for value in _values(text, name) if 0 <= value <= COUNT_MAX]
    return int(sum(values)) if values else None


def _usage(text: bytes, name: bytes) -> float | None:
    values = [min(value, 1.0) for value in _values(text, name) if 0 <= value <= ROUNDING]
    return sum(values) / len(values) if values else None


def _values(text: bytes, name: bytes) -> Iterator[float]:
    """Finite values of the series called `name`, found by search: of a page of 100 KB a few lines matter."""
    line = b"\n" + name
    at = text.find(line)
    while at >= 0:
        series = _SERIES(text, at + len(line))
        if series is not None and _COPY(series[1] or b"") is None and isfinite(value := _number(series[2])):
            yield value
        at = text.find(line, at + 1)


def _number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return nan
