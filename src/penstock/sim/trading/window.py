"""What happened in a part of a run."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from penstock.facts import Outcome
from penstock.sim.report import best_s, whole_s
from penstock.sim.spread import ratio, rounded, spread
from penstock.sim.world import REFUSED, Trip, World


def window(world: World, start_s: float, end_s: float, scale: float) -> dict[str, Any]:
    """Rates are for the whole exchange, whatever the scale.

    served_per_s, whole_s, utilisation: of the answers that ended in the window. refused, errors: shares of the requests that came
    in it; errors are "server busy" without more, time-outs and failures.
    """
    length = end_s - start_s
    came = [trip for trip in world.trips if start_s <= trip.arrival.at_s < end_s]
    ended = [trip for trip in world.trips if trip.outcome is Outcome.COMPLETED and start_s <= trip.ended_at < end_s]
    refused = sum(trip.outcome in REFUSED for trip in came)
    other = sum(trip.outcome not in REFUSED and trip.outcome is not Outcome.COMPLETED for trip in came)
    by_node: dict[int, list[Trip]] = {}
    for trip in ended:
        by_node.setdefault(trip.node, []).append(trip)
    best = sum(best_s(world.machines[node].profile, trips) for node, trips in by_node.items())
    return {
        "from_s": start_s,
        "to_s": end_s,
        "offered_per_s": rounded(len(came) / length / scale),
        "served_per_s": rounded(len(ended) / length / scale),
        "refused": ratio(refused, len(came)),
        "errors": ratio(other, len(came)),
        "utilisation": rounded(best / length / len(world.machines)),
        "busy": busy(world, start_s, end_s),
        "whole_s": spread([whole_s(trip) for trip in ended], (50, 99)),
    }


def busy(world: World, start_s: float, end_s: float) -> float | None:
    """Share of the nodes' time that they spent in steps, between the beats nearest to the window's ends."""
    times = [at for at, _ in world.busy]
    if not times:
        return None
    first, last = bisect_left(times, start_s), min(len(times) - 1, bisect_left(times, end_s))
    (began, before), (ended, after) = world.busy[first], world.busy[last]
    return ratio(after - before, (ended - began) * len(world.machines))
