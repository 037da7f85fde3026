"""KV memory where it is the bottleneck: how much of it is spoken for, how much is used, and how often engines run out.

Nodes have so little of it that requests wait for memory while slots are free. The reserved share is the mean over the
node-seconds in which they do; preempted are running answers that an engine threw out to go on with others.

    PYTHONPATH=. python benchmarks/memory.py [--limit N] [--seed N] [--json] [WORKLOAD ...]
"""

from __future__ import annotations

import sys
from typing import NamedTuple

from benchmarks.goodput import Json, Options, Work, options_of, present, simulated
from benchmarks.row import Row, main
from penstock.sim.slo import Slo

RESERVED, PREEMPTED = 0.92, 0.001


class Case(NamedTuple):
    work: Work
    nodes: int
    speedup: float


PATIENT = Slo(ttft_s=20.0, ttft_per_1k_s=1.0)
"""Where the time between tokens would be the limit otherwise."""
CASES = (
    Case(
        Work("servegen", "deepseek-v3-h200-tp8", trace="servegen_deepseek_r1.tar.xz", from_s=36_000.0, for_s=1_200.0, as_long=True), 17, 2.0
    ),
    Case(
        Work("servegen-night", "qwen3-32b-h100-tp2", trace="servegen_deepseek_r1.tar.xz", from_s=79_200.0, for_s=300.0, as_long=True),
        8,
        2.0,
    ),
    Case(Work("conversation", "mooncake-demo", trace="mooncake_conversation.jsonl.gz", slo=PATIENT), 6, 4.0),
    Case(Work("azure", "qwen3-32b-h100-tp2", trace="azure2023_conv.csv.gz", slo=PATIENT), 2, 8.0),
    Case(Work("chat", "qwen3-32b-h100-tp2", scenario="chat"), 3, 3.0),
    Case(Work("steady", "qwen3-32b-h100-tp2", scenario="steady"), 2, 6.0),
)


def rows(case: Case, result: Json) -> list[Row]:
    name, memory = f"memory: {case.work.name}", result["memory"]
    note = (
        f"used {memory['used'] or 0:.3f} of all, used/reserved {memory['used_of_reserved'] or 0:.3f}, page rounding "
        f"{memory['rounding'] or 0:.4f}, over {memory['limited_node_s']} node-seconds; goodput {result['goodput']:.3f}"
    )
    return [
        Row(f"{name}, reserved", memory["reserved"], "of KV", None, RESERVED, note),
        Row(f"{name}, preempted", result["preempted"] / max(1, result["completed"]), "of answers", PREEMPTED),
    ]


def measured(case: Case, options: Options) -> list[Row]:
    if not present(case.work):
        return [Row(f"memory: {case.work.name}", None, note=f"no {case.work.trace}")]
    try:
        return rows(case, simulated(case.work, options, case.nodes, case.speedup))
    except RuntimeError as error:
        return [Row(f"memory: {case.work.name}", None, note=str(error))]


def measure() -> list[Row]:
    names, options = options_of(sys.argv, "memory.py", __doc__ or "", [case.work.name for case in CASES])
    return [row for case in CASES if case.work.name in names for row in measured(case, options)]


if __name__ == "__main__":
    main(measure)
