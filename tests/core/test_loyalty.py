"""A full fleet: requests wait a little for the node that has their prefix, and no room is left unused for it."""

from __future__ import annotations

from random import Random

import msgspec

from penstock.engine import profiles
from penstock.facts import Outcome
from penstock.sim.arrival import Arrival
from penstock.sim.presets import PRESETS
from penstock.sim.report import summary
from penstock.sim.slo import Slo
from penstock.sim.world import World

SHARED, OWN = 11, 3
"""Blocks that the prompts of a group share, and others."""


def saturated(groups: int, seed: int, requests: int = 600) -> World:
    """Four nodes that hold a few groups each are sent more than they can do, then run empty."""
    rng, at_s, arrivals = Random(seed), 0.0, []
    for serial in range(requests):
        at_s += rng.expovariate(40.0)
        group = rng.randrange(groups)
        blocks = tuple(group * 1_000 + block for block in range(SHARED)) + tuple(10**6 + serial * 10 + block for block in range(OWN))
        arrivals.append(Arrival(at_s=at_s, prompt_tokens=7_200, output_tokens=200, blocks=blocks))
    profile = msgspec.structs.replace(profiles.load("qwen3-32b-h100-tp2"), kv_tokens=100_000)
    world = World(arrivals, [profile] * 4, PRESETS["penstock"], Slo(), (), seed)
    world.run()
    return world


def test_what_waits_goes_where_its_prefix_is_though_other_nodes_have_room_first() -> None:
    for seed in range(3):
        result = summary("penstock", saturated(24, seed), Slo())
        # 0.62 to 0.66 where each goes to the first node that has room.
        assert result["prefix_hit"] > 0.69


def test_all_are_served_and_no_node_stands_idle_for_it() -> None:
    world = saturated(1, 0, 200)
    assert all(trip.outcome is Outcome.COMPLETED for trip in world.trips)
    served = [sum(trip.node == node for trip in world.trips) for node in range(4)]
    assert min(served) > 35
