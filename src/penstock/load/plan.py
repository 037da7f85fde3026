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
    """Arrivals with exponential gaps at `rate` a second, none at or after `duration_s`."""
    draw = random.Random(seed).expovariate
    at = draw(rate)
    while at < duration_s:
        yield Planned(at, shape)
        at += draw(rate)


def replay(rows: Iterable[Planned], speedup: float, duration_s: float | None) -> Iterator[Planned]:
    """A trace's own times, its first arrival at 0, compressed by `speedup`; `duration_s` cuts the compressed run."""
    origin: float | None = None
    for row in rows:
        origin = row.at if origin is None else origin
        at = (row.at - origin) / speedup
        if duration_s is not None and at >= duration_s:
            return
        yield Planned(at, row.shape)
