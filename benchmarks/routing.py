"""Where nothing is refused: prefix hits against one pool of the same total size, and time to first token against other routers' rules.

The conversation trace on eight nodes, and workloads made here, each with every baseline of `sim.presets` in the same world. Then
DeepSeek-V3's nodes at 1x to 4x, as `penstock simulate --scenario deepseek` shows them, against round robin.

    PYTHONPATH=. python benchmarks/routing.py [--json]
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.process import SOURCES
from benchmarks.row import Row, main
from penstock.engine import profiles
from penstock.facts import Profile
from penstock.sim import load, traces
from penstock.sim.arrival import Arrival
from penstock.sim.published import deepseek
from penstock.sim.run import Plan, simulate
from penstock.sim.traces.ask import Ask

DATA = Path(os.environ.get("PENSTOCK_DATA", SOURCES.parent.parent / "shared" / "data"))
TRACE = "mooncake_conversation.jsonl.gz"
BASELINES = (
    "fifo-rr", "random", "least-requests", "load-balance", "two-choices", "consistent-hash", "sglang-cache-aware", "llmd-default",
)  # fmt: skip
HIT, LEVEL = 0.9, 1.02
"""Two runs that differ in nothing but chance differ by up to two hundredths."""


class Work(NamedTuple):
    name: str
    profile: Profile
    nodes: int
    arrivals: Callable[[], list[Arrival]]


def conversation(speedup: float = 1.0) -> list[Arrival]:
    return traces.read(DATA / TRACE, None, Ask(start_s=0.0, end_s=inf, speedup=speedup, limit=None, seed=0))


def made(name: str, seed: int, rate: float = 1.0) -> list[Arrival]:
    """A built-in workload at so many times its rates, of one tenant: what is measured is routing, not turns between tenants."""
    plain = load.scenario(name)
    clients = {name: msgspec.structs.replace(client, rate=client.rate * rate) for name, client in plain.clients.items()}
    arrivals = load.generate(msgspec.structs.replace(plain, clients=clients), seed)
    return [msgspec.structs.replace(arrival, tenant="") for arrival in arrivals]


def works() -> list[Work]:
    demo, qwen = profiles.load("mooncake-demo"), profiles.load("qwen3-32b-h100-tp2")
    found = [
        Work("chat, seed 0", qwen, 4, lambda: made("chat", 0)),
        Work("chat, seed 1", qwen, 4, lambda: made("chat", 1)),
        Work("shared-prefix, seed 0", qwen, 8, lambda: made("shared-prefix", 0)),
        Work("shared-prefix 1.5x, seed 1", qwen, 8, lambda: made("shared-prefix", 1, 1.5)),
    ]
    if (DATA / TRACE).exists():
        small = msgspec.structs.replace(profiles.load(deepseek.PROFILE), chunk_tokens=deepseek.CHUNK_TOKENS)
        found = [
            Work("conversation 1x", demo, 8, conversation),
            Work("conversation 2x", demo, 8, lambda: conversation(2.0)),
            Work("conversation 1x, small caches", small, 8, conversation),
            Work("conversation 1x, large caches", deepseek.profile(), 8, conversation),
            *found,
        ]
    return found


def rows(work: Work) -> list[Row]:
    plan = Plan(arrivals=work.arrivals(), fleet=[work.profile] * work.nodes, presets=("penstock", *BASELINES))
    ours, *theirs = simulate(plan)
    best = min(theirs, key=lambda result: result["ttft_s"]["mean"])
    ttft_s = ours["ttft_s"]["mean"]
    hits = f"{ours['prefix_hit']:.3f} of {ours['pool_hit']:.3f}"
    against = f"{ttft_s:.3f} s, {best['preset']} {best['ttft_s']['mean']:.3f} s with {best['prefix_hit']:.3f} of prompts cached"
    return [
        Row(f"routing: {work.name}, prefix hit / one pool", ours["prefix_hit"] / ours["pool_hit"], "", None, HIT, hits),
        Row(f"routing: {work.name}, TTFT / best baseline", ttft_s / best["ttft_s"]["mean"], "", LEVEL, None, against),
    ]


def measure() -> list[Row]:
    found = [row for work in works() for row in rows(work)]
    if not (DATA / TRACE).exists():
        return [*found, Row("routing: conversation and deepseek", None, note=f"no {TRACE} in {DATA}")]
    return found + published(conversation())


def published(arrivals: Sequence[Arrival]) -> list[Row]:
    figures = deepseek.figures(deepseek.results(arrivals, 0))
    return [Row(f"routing: deepseek, {one.what}", one.ours, "", one.most, one.least) for one in figures]


if __name__ == "__main__":
    main(measure)
