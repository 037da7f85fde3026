"""Presets over one workload, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from penstock.facts import Profile
from penstock.sim.arrival import Arrival
from penstock.sim.faults import Fault
from penstock.sim.hog import Hog, effect, grown
from penstock.sim.pool import cache_tokens, pool_hit
from penstock.sim.presets import preset
from penstock.sim.report import Json, summary
from penstock.sim.setting import PLAIN, Setting
from penstock.sim.slo import Slo
from penstock.sim.world import World


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is simulated."""

    arrivals: Sequence[Arrival]
    fleet: Sequence[Profile]
    presets: Sequence[str]
    slo: Slo = Slo()
    faults: Sequence[Fault] = ()
    seed: int = 0
    setting: Setting = PLAIN
    label: str = ""
    """Beside the preset's name, for who watches."""
    hog: Hog | None = None
    """Run each preset a second time, with this tenant at many times its rate."""


Watch = Callable[[str, int], None]
"""Is told a run's name and how many of its requests have ended."""


def simulate(plan: Plan, watch: Watch | None = None) -> list[Json]:
    """One result a preset. `watch` is told the preset and how many of its requests have ended. Raises TraceError."""
    chosen = [(name, preset(name)) for name in plan.presets]
    results = []
    pool = pool_hit(plan.arrivals, cache_tokens(plan.fleet))
    for name, one in chosen:
        world = World(plan.arrivals, plan.fleet, one, plan.slo, plan.faults, plan.seed, plan.setting)
        world.run(watched(watch, name + plan.label))
        result = summary(name, world, plan.slo)
        result["pool_hit"] = pool
        if plan.hog is not None:
            beside = World(grown(plan.arrivals, plan.hog), plan.fleet, one, plan.slo, plan.faults, plan.seed, plan.setting)
            beside.run(watched(watch, f"{name}, hog"))
            result["hog"] = effect(world, beside, plan.hog)
        results.append(result)
    return results


def watched(watch: Watch | None, name: str) -> Callable[[int], None] | None:
    return None if watch is None else lambda ended: watch(name, ended)
