"""The other collapse that the field knows: past 5,000 requests a second answers take 8 s instead of 200 ms, and 15% fail.

Fewer nodes, no limit on calls, callers who hang up after 10 s. Round robin with queues in the engines holds until the slowest nodes
are full; then those queues grow until callers hang up.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from penstock.config import Config
from penstock.sim.trading import runs
from penstock.sim.trading.curve import Step
from penstock.sim.trading.place import Run, new_entry
from penstock.sim.trading.verdict import Figure

PATIENCE_S = 10.0
FLEET = 0.6
"""Share of the exchange's nodes."""
RUN = Run("collapse", "4,500/s for 10 s, then 6,500/s", Step(before=4_500.0, after=6_500.0, at_s=10.0), 40.0, 30.0, 40.0)
CALM = (4.0, 10.0)
"""The part of the run before the step."""


def play(config: Config, scale: float, seed: int, watch: runs.Watch | None = None) -> list[dict[str, Any]]:
    """Before and after; callers hang up, and neither entry process limits its calls."""
    ways = [
        replace(way, setting=replace(way.setting, entry=new_entry(scale), patience_s=PATIENCE_S))
        for way in (runs.before(config, scale), runs.after(config, scale))
    ]
    return runs.play(RUN, ways, scale, seed, watch, CALM)


def figures(results: list[dict[str, Any]]) -> list[Figure]:
    before, after = results
    rows = []
    for way, result in (("before", before), ("after", after)):
        calm, late = result["calm"], result["window"]
        worst = late["whole_s"]["p99"] or 9e9
        failed = late["errors"] + late["refused"]
        rows.append(Figure(run="collapse", way=way, what="p99 at 4,500/s", unit="s", measured=calm["whole_s"]["p99"] or 9e9, most=0.5))
        if way == "before":
            rows.append(Figure(run="collapse", way=way, what="p99 at 6,500/s", unit="s", measured=worst, least=8.0))
            rows.append(Figure(run="collapse", way=way, what="errors at 6,500/s", unit="%", measured=failed, least=0.15))
        else:
            rows.append(Figure(run="collapse", way=way, what="p99 at 6,500/s", unit="s", measured=worst, most=0.45))
            rows.append(Figure(run="collapse", way=way, what="errors and refusals", unit="%", measured=failed, most=0.01))
    return rows
