"""What an engine's metrics endpoint says of its load, from vLLM, SGLang or llama.cpp, by their old and new names.

Telemetry is input: what is not a finite number inside sane bounds is dropped, and what is dropped is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isfinite, nan

import msgspec

from penstock.facts import Signals

COUNT_MAX = 1_000_000.0
"""No engine runs or queues more requests than that."""
ROUNDING = 1.01
"""A usage a little above 1 is 1; far above it is nonsense."""


class Dialect(msgspec.Struct, frozen=True):
    """An engine's names for the three signals; for the usage, the first that is there counts."""

    running: bytes
    waiting: bytes
    kv_usage: tuple[bytes, ...]


DIALECTS = {
    b"vllm:": Dialect(b"num_requests_running", b"num_requests_waiting", (b"kv_cache_usage_perc", b"gpu_cache_usage_perc")),
    b"sglang:": Dialect(b"num_running_reqs", b"num_queue_reqs", (b"token_usage",)),
    b"llamacpp:": Dialect(b"requests_processing", b"requests_deferred", (b"kv_cache_usage_ratio",)),
}
"""Prefix of the names -> the names after it."""

_SERIES = re.compile(rb"(?:\{([^\n]*)\})?[ \t]+([^\s]+)").match
_COPY = re.compile(rb'(?:^|,)\s*(?:tp|pp)_rank="(?!0")').search
"""Ranks of one tensor- or pipeline-parallel group report the same requests: the first speaks for all."""


def read(text: bytes) -> Signals:
    """Signals in a metrics page (Prometheus text format 0.0.4); None for what it does not say.

    Counts are summed over labelled series (models, data-parallel ranks), the usage is their mean.
    """
    text = b"\n" + text
    for prefix, names in DIALECTS.items():
        if b"\n" + prefix in text:
            running, waiting = _total(text, prefix + names.running), _total(text, prefix + names.waiting)
            usages = (_usage(text, prefix + name) for name in names.kv_usage)
            return Signals(running, waiting, next((usage for usage in usages if usage is not None), None))
    return Signals()


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
