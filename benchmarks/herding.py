"""Prefixes that many share, in the simulator: neither herds on the node that has one, nor copies of it everywhere.

Small caches: eight nodes whose caches hold two prompts each; 60% of the prompts share their first 3,072 of 4,096 tokens. A router that
takes what it once sent for what is still cached sends all of those to one node, until its limits of imbalance are passed
(sgl-project/sglang 14532, 32983). Load is what nodes compute. A burst: requests that share 16,384 tokens which no node has, all within
half a second.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import NamedTuple

from benchmarks.row import Row, main
from penstock.facts import Profile
from penstock.sim.arrival import Arrival
from penstock.sim.presets import PRESETS
from penstock.sim.slo import Slo
from penstock.sim.world import Trip, World

NODES, PROMPT, SHARED = 8, 4_096, 6
NODE = Profile(
    name="made-up", source="made up", c0_s=0.01, c1_s=2e-4, c2_s=0.0, c3_s=1e-4,
    kv_tokens=4_000_000, cache_tokens=400_000, max_sequences=256, chunk_tokens=2_048,
)  # fmt: skip
SMALL = Profile(
    name="small-cache", source="made up", c0_s=0.01, c1_s=2e-4, c2_s=0.0, c3_s=1e-4,
    kv_tokens=200_000, cache_tokens=8_192, max_sequences=64, chunk_tokens=2_048,
)  # fmt: skip
PREFIX, OWN = 32, 512
OTHERS = ("sglang-cache-aware", "least-requests", "fifo-rr")


class Found(NamedTuple):
    uneven: float
    """The most that a node computed over the least."""
    ttft_s: float
    last_s: float
    computed: int
    """Prompt tokens."""
    nodes: int
    """Nodes that computed the prefix that all share."""


def popular(per_s: float, seconds: float, seed: int = 1) -> list[Arrival]:
    draw, at, own, arrivals = Random(seed), 0.0, SHARED, list[Arrival]()
    while (at := at + draw.expovariate(per_s)) < seconds:
        blocks = tuple(range(own, own + PROMPT // 512))
        own += len(blocks)
        if draw.random() < 0.6:
            blocks = tuple(range(SHARED)) + blocks[SHARED:]
        arrivals.append(Arrival(at, PROMPT, draw.randint(50, 150), blocks))
    return arrivals


def burst(count: int) -> list[Arrival]:
    return [Arrival(0.5 * number / count, PREFIX * 512 + OWN, 50, (*range(PREFIX), 1_000 + number)) for number in range(count)]


def run(name: str, arrivals: list[Arrival], profile: Profile, slo_s: float | None = None) -> tuple[Found, list[Trip]]:
    world = World(arrivals, [profile] * NODES, PRESETS[name], Slo(ttft_s=slo_s))
    world.run()
    done = [trip for trip in world.trips if trip.first_at >= 0]
    work = Counter(dict.fromkeys(range(NODES), 0))
    for trip in done:
        work[trip.node] += trip.arrival.prompt_tokens - trip.cached_tokens
    times = [trip.first_at - trip.arrival.at_s for trip in done]
    cold = {trip.node for trip in done if trip.cached_tokens < (PREFIX - 1) * 512}
    found = Found(max(work.values()) / max(1, min(work.values())), sum(times) / len(times), max(times), work.total(), len(cold))
    return found, world.trips


def herd_rows() -> list[Row]:
    rows = []
    for per_s in (14.0, 18.0):
        arrivals = popular(per_s, 120.0)
        ours, _ = run("penstock", arrivals, SMALL)
        others = {name: run(name, arrivals, SMALL)[0] for name in OTHERS}
        theirs, best = others["sglang-cache-aware"], min(found.ttft_s for found in others.values())
        at = f"at {per_s:g}/s"
        rows += [
            Row(f"herding: most / least loaded node, small caches, {at}", ours.uneven, "x", at_most=1.6),
            Row(f"herding: the same, sglang's cache_aware, {at}", theirs.uneven, "x"),
            Row(f"herding: mean TTFT / sglang's cache_aware, {at}", ours.ttft_s / theirs.ttft_s, "x", at_most=0.5),
            Row(f"herding: mean TTFT / the best of three others', {at}", ours.ttft_s / best, "x"),
        ]
    return rows


def burst_rows() -> list[Row]:
    rows = []
    for count in (5, 20, 60, 200, 600):
        ours, _ = run("penstock", burst(count), NODE)
        spread, _ = run("least-requests", burst(count), NODE)
        note = (
            f"mean TTFT {ours.ttft_s:.2f} s, spread at once {spread.ttft_s:.2f} s; computed {ours.computed / spread.computed:.2f} of that"
        )
        few = count <= 20
        rows.append(Row(f"herding: nodes that compute a prefix, burst of {count}", ours.nodes, "nodes", 1 if few else None, note=note))
        if not few:
            rows.append(Row(f"herding: mean TTFT / spread at once, burst of {count}", ours.ttft_s / spread.ttft_s, "x", at_most=1.6))
    for count, slo_s in ((60, 2.5), (200, 4.0)):
        _, ours_all = run("penstock", burst(count), NODE, slo_s)
        _, others_all = run("sglang-cache-aware", burst(count), NODE, slo_s)
        mine, theirs = (in_time(trips, slo_s) for trips in (ours_all, others_all))
        name = f"herding: in time, burst of {count}, first tokens within {slo_s:g} s"
        rows.append(Row(name, mine, "of all", at_least=theirs, note="sglang's cache_aware is the goal"))
    return rows


def in_time(trips: list[Trip], slo_s: float) -> float:
    return sum(0 <= trip.first_at <= trip.arrival.at_s + slo_s for trip in trips) / len(trips)


def measure() -> list[Row]:
    return [*herd_rows(), *burst_rows()]


if __name__ == "__main__":
    main(measure)
