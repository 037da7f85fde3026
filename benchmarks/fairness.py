"""Fairness between tenants, in the simulator, and what it costs.

The gap is VTC's (OSDI'24): on its released trace, on a machine fitted to that trace's own results, beside first come first served.
That machine holds some 25 answers. Routers that fill it have nearly every answer thrown out once and computed again. What would
have to be kept free so that hardly any is (knob `kv_sure`) is a quarter of so small a memory; knob `kv_free` bounds that.
The hog is one of ten tenants at a hundred times its rate, in fleets that the ten keep between a tenth and a half busy. What
is kept for the others while it asks (knob `slower`) costs output; `slower` 100 keeps nothing.
"""

from __future__ import annotations

import gc
import random
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import msgspec

from benchmarks.row import Row, main
from penstock.config import Class, Config, Node, Policy
from penstock.core import Core
from penstock.engine import profiles
from penstock.events import Arrived, Finished, Forward
from penstock.facts import Request
from penstock.knobs import Knobs
from penstock.sim import hog, load, traces
from penstock.sim.presets import PRESETS, Preset
from penstock.sim.report import summary
from penstock.sim.slo import Slo
from penstock.sim.traces.ask import Ask
from penstock.sim.world import World

TRACE = (
    next((folder for folder in (above / "shared" / "data" for above in Path(__file__).parents) if folder.exists()), Path())
    / "vtc_fcfs_real.jsonl.gz"
)
TENANTS, WAITING, REQUESTS, ROUNDS = 10_000, 5_000, 3_000, 3


class Case(NamedTuple):
    nodes: int
    hog: hog.Hog
    profile: str = "deepseek-v3-h200-tp8"
    seed: int = 0


HOGS = (
    Case(4, hog.Hog("t0", 100)),
    Case(8, hog.Hog("t0", 100)),
    Case(16, hog.Hog("t0", 100, 100.0)),
)
"""The last has room for nearly all that the hog asks for: were it there from the start, that would be what is usual."""


def sure() -> Preset:
    """All of the deviations kept free, however few answers there are."""
    ours = PRESETS["penstock"]
    return msgspec.structs.replace(ours, knobs=msgspec.structs.replace(ours.knobs, kv_free=1.0))


def ordered(order: str) -> Preset:
    ours = PRESETS["penstock"]
    return msgspec.structs.replace(ours, policy=msgspec.structs.replace(ours.policy, order=order))


def trace_rows() -> list[Row]:
    if not TRACE.exists():
        return [Row("fairness: VTC's trace", None, note=f"{TRACE.name} is not here")]
    arrivals = traces.read(TRACE, None, Ask())
    found: dict[str, dict[str, Any]] = {}
    for name, preset in (("fifo-rr", PRESETS["fifo-rr"]), ("fcfs", ordered("fcfs")), ("fair", PRESETS["penstock"]), ("sure", sure())):
        world = World(arrivals, [profiles.load("llama-7b-a10g")], preset, Slo())
        world.run()
        found[name] = summary(name, world, Slo())
    gaps = {name: result["fairness"]["gap_tokens_per_s"] for name, result in found.items()}
    rates = {name: result["output_tokens_per_s"] for name, result in found.items()}
    thrown = {name: result["preempted"] / result["completed"] for name, result in found.items()}
    return [
        Row("fairness: gap on VTC's trace, first come first served", gaps["fifo-rr"], "tokens/s"),
        Row("fairness: gap, this gateway / that", gaps["fair"] / gaps["fifo-rr"], "x", at_most=0.5),
        Row("fairness: output, this gateway / it without turns", rates["fair"] / rates["fcfs"], "x", at_least=0.99),
        Row("fairness: output, this gateway / that", rates["fair"] / rates["fifo-rr"], "x", at_least=0.99),
        Row("fairness: answers thrown out, that", thrown["fifo-rr"], "of all"),
        Row("fairness: answers thrown out, this gateway", thrown["fair"], "of all"),
        Row("fairness: output, kv_free 1 / that", rates["sure"] / rates["fifo-rr"], "x"),
        Row("fairness: answers thrown out, kv_free 1", thrown["sure"], "of all"),
    ]


def beside(case: Case, slower: float | None = None) -> tuple[dict[str, Any], float]:
    """How the others fare beside the hog, and the output tokens a second, while it asks."""
    arrivals = load.generate(load.scenario("tenants"), case.seed)
    preset = PRESETS["penstock"]
    if slower is not None:
        preset = msgspec.structs.replace(preset, knobs=msgspec.structs.replace(preset.knobs, slower=slower))
    before, after = (
        World(some, [profiles.load(case.profile)] * case.nodes, preset, Slo()) for some in (arrivals, hog.grown(arrivals, case.hog))
    )
    before.run()
    after.run()
    last = arrivals[-1].at_s
    written = [trip.arrival.output_tokens for trip in after.trips if case.hog.from_s <= trip.first_at and trip.ended_at <= last]
    return hog.effect(before, after, case.hog), sum(written) / (last - case.hog.from_s)


def hog_rows() -> list[Row]:
    rows, found = [], [beside(case) for case in HOGS]
    for case, (result, _) in zip(HOGS, found, strict=True):
        name = f"{case.nodes} nodes" + (f", from {case.hog.from_s:g} s on" if case.hog.from_s else "")
        note = f"{result['others']['ttft_s']['p99'] * 1e3:.0f} -> {result['others_beside_it']['ttft_s']['p99'] * 1e3:.0f} ms"
        rows.append(Row(f"fairness: others' TTFT p99 beside a hog of 100x, {name}", result["p99"], "x", at_most=1.1, note=note))
    (free, most), (kept, rate) = beside(HOGS[1], slower=100.0), found[1]
    note = f"others' TTFT p99 {free['p99']:.2f} and {kept['p99']:.2f} times what it was"
    return [*rows, Row("fairness: output beside it, 8 nodes, kept for others / not", rate / most, "x", note=note)]


def dispatch_us(order: str, tenants: int) -> float:
    """CPU microseconds for an end, the dispatch it leads to and an arrival, with `WAITING` requests of so many tenants waiting."""
    node = Node(name="n", url="http://10.0.0.1:9000", models=("m",), max_running=1)
    config = Config(nodes=(node,), classes=(Class(name="usual", ttft_ms=3.6e6),), policy=Policy(order=order, admit="bounded"))
    core = Core(config, Knobs(queue_max=100_000), random.Random(1), {})
    draw = random.Random(2)

    def call(id: int) -> Arrived:
        return Arrived(Request(id=id, model="m", tenant=f"t{draw.randrange(tenants)}", prompt_tokens=draw.randint(10, 2_000)))

    for id in range(1, WAITING + 2):
        core.handle(call(id), 0.0)
    running, spent = 1, 0.0
    gc.collect()
    gc.disable()
    try:
        for id in range(WAITING + 2, WAITING + 2 + REQUESTS):
            event, now = call(id), (id - WAITING) * 1e-3
            before = perf_counter()
            core.handle(event, now)
            actions = core.handle(Finished(running, output_tokens=100), now)
            spent += perf_counter() - before
            running = next(action.id for action in actions if isinstance(action, Forward))
    finally:
        gc.enable()
    return spent / REQUESTS * 1e6


def cost_rows() -> list[Row]:
    asked = (("deadline", 1), ("fair", 1), ("fair", TENANTS))
    rounds = [[dispatch_us(order, tenants) for order, tenants in asked] for _ in range(ROUNDS)]
    plain, one, many = (min(costs) for costs in zip(*rounds, strict=True))
    return [
        Row(f"fairness: a request by deadline, {WAITING:,} waiting", plain, "us"),
        Row("fairness: in turn, one tenant", one, "us"),
        Row(f"fairness: in turn, {TENANTS:,} tenants", many, "us", at_most=500),
        Row("fairness: one tenant, in turn / by deadline", one / plain, "x", at_most=1.2),
    ]


def measure() -> list[Row]:
    return [*trace_rows(), *hog_rows(), *cost_rows()]


if __name__ == "__main__":
    main(measure)
