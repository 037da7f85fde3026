"""The other collapse that the field knows: past 5,000 requests a second answers take 8 s instead of 200 ms, and 15% fail.

Fewer nodes than the exchange has, behind the same old entry process. Round robin gives the one slow node what the others get. Past
what it can do its queue grows, until the calls that wait for it are all that the entry process can hold.
"""

from __future__ import annotations

from typing import Any

from penstock.sim.trading.curve import Crowd
from penstock.sim.trading.place import Run
from penstock.sim.trading.verdict import Figure

BELOW, PAST = 4_000.0, 6_700.0
RUN = Run(
    "collapse",
    "to 4,000/s in 20 s, 10 s level, then 6,700/s",
    Crowd(before=BELOW, after=PAST, warm_s=20.0, at_s=30.0),
    105.0,
    90.0,
    105.0,
    nodes=(28, 1),
)
CALM = (24.0, 30.0)
"""The part of the run before the step."""
NEVER_S = 9e9


def figures(results: list[dict[str, Any]]) -> list[Figure]:
    rows = []
    for result in results:
        way, calm, late = result["way"], result["calm"], result["window"]
        below, past = (part["whole_s"]["p99"] or NEVER_S for part in (calm, late))
        failed = late["errors"] + late["refused"]
        bounds = ({"most": 0.3}, {"least": 8.0}, {"least": 0.15}) if way == "before" else ({"most": 0.3}, {"most": 0.45}, {"most": 0.001})
        rows += [
            Figure(run="collapse", way=way, what=f"p99 at {BELOW:,.0f}/s", unit="s", measured=below, **bounds[0]),
            Figure(run="collapse", way=way, what=f"p99 at {PAST:,.0f}/s", unit="s", measured=past, **bounds[1]),
            Figure(run="collapse", way=way, what=f"errors and refusals at {PAST:,.0f}/s", unit="%", measured=failed, **bounds[2]),
        ]
    return rows
