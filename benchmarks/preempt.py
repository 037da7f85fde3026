"""What making way is worth: urgent short prompts among long ones, with `knobs.preempt` 0 and 1, at three loads.

Four modelled nodes; one request in five is urgent (at most 1,000 tokens, first token due in 0.4 s), the others are long (4,000 to
30,000 tokens, due in 20 s) and of the lowest priority.
"""

from __future__ import annotations

from random import Random

import msgspec

from benchmarks.row import Row, main
from penstock.config import Class, Range, When
from penstock.engine import profiles
from penstock.events import ConfigReplaced, KnobsSet
from penstock.facts import Outcome
from penstock.knobs import Knobs
from penstock.sim.arrival import Arrival
from penstock.sim.presets import preset
from penstock.sim.report import ttft
from penstock.sim.slo import Slo
from penstock.sim.world import World

RULES = (
    Class(name="urgent", priority=5, ttft_ms=400, when=When(prompt_tokens=Range(le=1_000))),
    Class(name="rest", priority=1, ttft_ms=20_000),
)
LOADS = (3.0, 6.0, 12.0)
"""Requests a second; four nodes take about four."""
REQUESTS = 4_000


def arrivals(rate: float) -> list[Arrival]:
    draw, now, made = Random(3), 0.0, []
    for _ in range(REQUESTS):
        now += draw.expovariate(rate)
        tokens = draw.randint(100, 1_000) if draw.random() < 0.2 else draw.choice((4_000, 8_000, 30_000))
        made.append(Arrival(now, tokens, draw.randint(50, 200)))
    return made


def in_time(rate: float, preempt: int) -> tuple[float, float]:
    """Shares of the urgent requests and of the others whose first token came in time."""
    world = World(arrivals(rate), [profiles.load("mooncake-demo")] * 4, preset("penstock"), Slo(ttft_s=20.0), seed=1)
    world.core.handle(ConfigReplaced(msgspec.structs.replace(world.core.config, classes=RULES)), 0.0)
    world.core.handle(KnobsSet(Knobs(preempt=preempt)), 0.0)
    world.run()
    shares = []
    for urgent in (True, False):
        trips = [trip for trip in world.trips if (trip.arrival.prompt_tokens <= 1_000) is urgent]
        due_s = 0.4 if urgent else 20.0
        good = sum(trip.outcome is Outcome.COMPLETED and ttft(trip) <= due_s for trip in trips)
        shares.append(good / len(trips))
    return shares[0], shares[1]


def measure() -> list[Row]:
    rows = []
    for rate in LOADS:
        for preempt in (0, 1):
            urgent, rest = in_time(rate, preempt)
            rows.append(Row(f"urgent in time at {rate:g}/s, preempt {preempt}", urgent, "share", note=f"the rest {rest:.3f}"))
    return rows


if __name__ == "__main__":
    main(measure)
