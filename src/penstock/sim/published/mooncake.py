"""Mooncake (Qin and others, FAST'25): schedulers of its prefill nodes on the conversation trace, by mean time to first token.

Published: random 19.65 s, load balance 5.27, the best node's cache 3.58, any node's cache 3.07, on 16 nodes of 8 A800. Prompts and
answers are computed on different nodes there, half of them each, and a first token comes with its prompt: so eight nodes that
compute prompts and answer with one token are what is simulated. Two numbers are set such that `random` and `load-balance`
show what was published of them:

- c3, 175 us a prompt token instead of the shipped profile's 94: 5,700 tokens/s of a 70B model on eight A800 is a third of their
  dense BF16 peak. The profile is of short prompts; attention over 12,000 tokens and more costs the rest.
- a prefix cache of 1,000,000 tokens a node: 328 GB, a third of a node's main memory of a TB.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from penstock.engine import profiles
from penstock.facts import Profile
from penstock.sim.arrival import Arrival
from penstock.sim.published.figure import Figure, rebuilt
from penstock.sim.report import Json
from penstock.sim.run import Plan, Watch, simulate

ABOUT = "Mooncake's prefill nodes (FAST'25) on its conversation trace: mean time to first token against random and load balance"
NODES = 8
PROFILE = "llama-70b-a800-tp8"
TOKEN_S = 175e-6
CACHE_TOKENS = 1_000_000
NEVER = 100_000_000
"""Tokens of KV memory that are never short: answers are elsewhere."""
SEEDS = 3
"""Random choices vary: a preset's figures are the means of as many runs."""
RANDOM_S, BALANCED_S, CACHED_S, BEST_S = 19.65, 5.27, 3.58, 3.07
GOAL = 0.16
PRESETS = ("random", "load-balance", "sglang-cache-aware", "penstock")


def profile() -> Profile:
    return msgspec.structs.replace(
        profiles.load(PROFILE), name="mooncake-prefill", c3_s=TOKEN_S, cache_tokens=CACHE_TOKENS, kv_tokens=NEVER, max_sequences=10_000
    )


def results(arrivals: Sequence[Arrival], seed: int, watch: Watch | None = None) -> list[Json]:
    """One row a preset."""
    prompts = [msgspec.structs.replace(arrival, output_tokens=1) for arrival in arrivals]
    fleet = [profile()] * NODES
    runs = [
        simulate(Plan(arrivals=prompts, fleet=fleet, presets=PRESETS, seed=seed + number, label=f", run {number + 1}"), watch)
        for number in range(SEEDS)
    ]
    return [mean(list(alike)) for alike in zip(*runs, strict=True)]


def mean(runs: list[Json]) -> Json:
    """The first run's row with the means of all."""
    ttft_s = {key: sum(run["ttft_s"][key] for run in runs) / len(runs) for key in runs[0]["ttft_s"]}
    hit = sum(run["prefix_hit"] for run in runs) / len(runs)
    return {**runs[0], "ttft_s": ttft_s, "prefix_hit": hit, "output_tokens_per_s": None}


def figures(rows: Sequence[Json]) -> list[Figure]:
    ttft_s = {row["preset"]: row["ttft_s"]["mean"] for row in rows}
    ours = {row["preset"]: row for row in rows}["penstock"]
    return [
        rebuilt("random, mean TTFT", "s", RANDOM_S, ttft_s["random"]),
        rebuilt("load balance, mean TTFT", "s", BALANCED_S, ttft_s["load-balance"]),
        Figure(what="cache-aware router, mean TTFT / random's", unit="x", theirs=CACHED_S / RANDOM_S,
               ours=ttft_s["sglang-cache-aware"] / ttft_s["random"]),
        Figure(what="this gateway, mean TTFT / random's", unit="x", theirs=BEST_S / RANDOM_S, ours=ttft_s["penstock"] / ttft_s["random"],
               most=GOAL),
        Figure(what="this gateway, prefix hit / one pool's", unit="x", ours=ours["prefix_hit"] / ours["pool_hit"], least=0.9),
    ]  # fmt: skip
