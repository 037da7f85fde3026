"""When calls start and how large they are, decided before the first one is sent.

Law: no I/O and no clock. An arrival never depends on an answer, or overload would slow the load that is to show it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import msgspec


class Shape(msgspec.Struct, frozen=True, gc=False):
    """One call's size. Blocks name shared prefixes: equal ids stand for equal text of `facts.BLOCK_TOKENS` tokens."""

    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


class Planned(msgspec.Struct, frozen=True, gc=False):
    """A call and its intended start, in seconds from the start of the run."""

    at: float
    shape: Shape


def poisson(rate: float, duration_s: float, shape: Shape, seed: int) -> Iterator[Planned]:
    """A Poisson process of `rate` a second, given that it brings the expected number of arrivals in `duration_s`.

    Exponential gaps, scaled so that count and duration are exact: a short step then offers the rate that it is named after.
    """
    count = max(1, round(rate * duration_s))
    draw = random.Random(seed).expovariate
    scale = duration_s / sum(draw(1.0) for _ in range(count + 1))
    draw = random.Random(seed).expovariate
    at = 0.0
    for _ in range(count):
        at += draw(1.0) * scale
        yield Planned(at, shape)


def replay(rows: Iterable[Planned], speedup: float, duration_s: float | None) -> Iterator[Planned]:
    """A trace's own times, its first arrival at 0, compressed by `speedup`; `duration_s` cuts the compressed run."""
    origin: float | None = None
    for row in rows:
        origin = row.at if origin is None else origin
        at = (row.at - origin) / speedup
        if duration_s is not None and at >= duration_s:
            return
        yield Planned(at, row.shape)
