"""The place: nodes, entry process and loads of the reference case. Everything that is assumed stands here and in `desks`.

docs/trading.md derives the numbers. None of them is a result: what the runs show follows from them.
"""

from __future__ import annotations

import msgspec

from penstock.engine import profiles
from penstock.facts import Profile
from penstock.sim.entry import Entry
from penstock.sim.trading.curve import Bell, Crowd, Ramp, Rate

FAST, SLOW = "llama-8b-h200-tp1", "llama-8b-h100-tp1"
"""Most nodes are new, some of the generation before."""
EXCHANGE = (42, 3)
"""How many of each."""
CHUNK_TOKENS = 1_024
"""Prefill tokens a step may hold: steps of about 20 ms, for answers of a few tokens within a few hundred milliseconds."""
KV_TOKENS = 426_000
"""KV memory on every node, by one setting for the fleet: what fits beside the weights on the smaller card."""
CALL_S = 45e-6
"""CPU time of an entry process for one call: what Penstock's gateway was measured at (FACTS: 38 to 45 us); granted to the old one too."""
OLD_MOST = 2_000
"""Calls that the old entry process can have open."""


class Run(msgspec.Struct, frozen=True):
    """A load, and the part of it that the figures are of."""

    name: str
    about: str
    rate: Rate
    duration_s: float
    start_s: float
    end_s: float
    nodes: tuple[int, int] = EXCHANGE
    """Fast and slow ones."""


RUNS = {
    "bell": Run(
        "bell",
        "quiet trading, then within a second 12,000/s for 10 s, falling away",
        Bell(before=4_000.0, peak=12_000.0, after=6_000.0, at_s=6.0, rise_s=1.0, hold_s=10.0, fall_s=3.0),
        24.0,
        7.0,
        17.0,
    ),
    "ramp": Run("ramp", "from 4,000/s to 19,500/s in 16 s, then level", Ramp(first=4_000.0, last=19_500.0, until_s=16.0), 28.0, 18.0, 28.0),
    "overload": Run(
        "overload",
        "on a third of the nodes: to 3,000/s, then 18,500/s, three times what these can do",
        Crowd(before=3_000.0, after=18_500.0, warm_s=4.0, at_s=6.0),
        16.0,
        6.0,
        16.0,
        nodes=(14, 1),
    ),
}


def fleet(nodes: tuple[int, int], scale: float) -> list[Profile]:
    return [
        msgspec.structs.replace(profiles.load(name), chunk_tokens=CHUNK_TOKENS, kv_tokens=KV_TOKENS)
        for name, count in counts(nodes, scale).items()
        for _ in range(count)
    ]


def counts(nodes: tuple[int, int], scale: float) -> dict[str, int]:
    """At least one of each kind."""
    return {name: max(1, round(count * scale)) for name, count in zip((FAST, SLOW), nodes, strict=True)}


def old_entry(scale: float) -> Entry:
    return Entry(cost_s=CALL_S / scale, most=max(1, round(OLD_MOST * scale)))


def new_entry(scale: float) -> Entry:
    return Entry(cost_s=CALL_S / scale)
