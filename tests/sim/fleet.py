"""A small engine for tests, and runs of the world with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from penstock.facts import Profile
from penstock.sim.arrival import Arrival
from penstock.sim.presets import preset
from penstock.sim.slo import Slo
from penstock.sim.world import World

SMALL = Profile(
    name="small",
    source="tests",
    c0_s=0.01,
    c1_s=0.0,
    c2_s=0.0,
    c3_s=0.001,
    kv_tokens=20_000,
    max_sequences=8,
    chunk_tokens=512,
    page_tokens=16,
)
ANY = Slo()


def profile(**changes: Any) -> Profile:
    return msgspec.structs.replace(SMALL, **changes)


def world(arrivals: Sequence[Arrival], name: str = "penstock", nodes: int = 2, slo: Slo = ANY, **options: Any) -> World:
    made = World(arrivals, [SMALL] * nodes, preset(name), slo, **options)
    made.run()
    return made
