"""A journal of what the scheduler did in simulated overloads with failures, for another build to replay: `python -m tests.builds DIR`.

`penstock replay DIR` then compares every action, byte for byte.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from typing import cast

from msgspec.structs import replace
from tests.playbook import Overheard

from penstock.core import Core
from penstock.engine import profiles
from penstock.journal import MAGIC, SUFFIX, Head, frame
from penstock.sim.arrival import Arrival
from penstock.sim.faults import Fault, schedule
from penstock.sim.presets import preset
from penstock.sim.slo import Slo
from penstock.sim.world import World, configuration, names

SEED, REQUESTS, RATE, NODES = 7, 4_000, 60.0, 4
ORDERS = ("deadline", "value", "fair", "fcfs")
FAULTS = schedule([Fault(at_s=12.0, node="n1", do="kill", for_s=8.0), Fault(at_s=30.0, node="n2", do="slow", factor=3.0)])


def arrivals(rng: Random) -> list[Arrival]:
    """Three tenants with prefixes of their own, one of them at ten times the others' rate; a third are JSON."""
    made, at_s = [], 0.0
    for _ in range(REQUESTS):
        at_s += rng.expovariate(RATE)
        tenant = "a" if rng.random() < 0.8 else rng.choice("bc")
        prompt = min(30_000, int(rng.lognormvariate(7.0, 1.0)) + 1)
        blocks = tuple(hash((ord(tenant), rng.randrange(5) if place == 0 else place)) for place in range(prompt // 512))
        output = int(rng.expovariate(1 / 200)) + 1
        made.append(Arrival(at_s, prompt, output, blocks, tenant, max_tokens=rng.choice((0, 512)), stream=rng.random() < 0.7))
    return made


def record(order: str, folder: Path) -> None:
    used = replace(preset("penstock-tickets"), policy=replace(preset("penstock-tickets").policy, order=order))
    fleet, slo = [profiles.load("mooncake-demo")] * NODES, Slo(ttft_s=2.0, tpot_s=0.1)
    world = World(arrivals(Random(SEED)), fleet, used, slo, FAULTS, SEED)
    nodes = list(zip(names(NODES), fleet, strict=True))
    config = configuration(used, nodes, ("model",), slo)
    with (folder / f"{order}-00000{SUFFIX}").open("wb") as file:
        file.write(MAGIC + frame(Head(config=config, knobs=config.knobs, seed=SEED, profiles={one.name: one for one in fleet})))
        world.core = cast(Core, Overheard(world.core, lambda now, event, actions: file.write(frame((now, event, actions)))))
        world.run()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for one in ORDERS:
        record(one, target)
