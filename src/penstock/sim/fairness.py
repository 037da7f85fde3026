"""How evenly tenants were served, as VTC (OSDI'24) measures it.

Service is input + `OUTPUT_WEIGHT` x output tokens: a prompt's when its first token comes, an answer's as it is written, taken as
even between its first token and its end. Over windows of `WINDOW_S`, one each `STEP_S`: the gap is the largest less the smallest
service a second among the tenants that had a request waiting all through the window, and the largest gap of all windows counts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from penstock.core.fairness import OUTPUT_WEIGHT
from penstock.facts import Outcome
from penstock.sim.world import Trip

Json = dict[str, Any]

WINDOW_S = 60.0
STEP_S = 10.0


class Served:
    """One tenant's service over time, and when it had a request waiting for its first token."""

    def __init__(self, trips: Sequence[Trip]) -> None:
        self.trips = sorted((trip for trip in trips if trip.first_at >= 0.0), key=lambda trip: trip.first_at)
        self.waits = joined([(trip.arrival.at_s, trip.first_at if trip.first_at >= 0.0 else trip.ended_at) for trip in trips])

    def backlogged(self, start: float, end: float) -> bool:
        at = bisect_left(self.waits, start, key=lambda wait: wait[1])
        return at < len(self.waits) and self.waits[at][0] <= start and self.waits[at][1] >= end

    def service(self, start: float, end: float) -> float:
        """Weighted tokens in the window."""
        total = 0.0
        for trip in self.trips:
            if trip.first_at >= end:
                break
            if trip.ended_at < start:
                continue
            total += trip.arrival.prompt_tokens if trip.first_at >= start else 0
            whole = trip.ended_at - trip.first_at
            part = (min(trip.ended_at, end) - max(trip.first_at, start)) / whole if whole > 0.0 else float(trip.first_at >= start)
            tokens = trip.arrival.output_tokens if trip.outcome is Outcome.COMPLETED else 0
            total += OUTPUT_WEIGHT * tokens * part
        return total


def joined(waits: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same times, those that touch made one, in order."""
    whole: list[tuple[float, float]] = []
    for start, end in sorted(waits):
        if whole and start <= whole[-1][1]:
            whole[-1] = (whole[-1][0], max(whole[-1][1], end))
        else:
            whole.append((start, end))
    return whole


def fairness(trips: Sequence[Trip]) -> Json | None:
    """None where there is one tenant."""
    tenants: dict[str, list[Trip]] = {}
    for trip in trips:
        tenants.setdefault(trip.arrival.tenant, []).append(trip)
    if len(tenants) < 2:
        return None
    known = [Served(own) for own in tenants.values()]
    first, last = min(trip.arrival.at_s for trip in trips), max(trip.ended_at for trip in trips)
    gap, at, most, windows = 0.0, None, 0, 0
    for step in range(int(max(0.0, last - first - WINDOW_S) / STEP_S) + 1):
        start = first + step * STEP_S
        services = [one.service(start, start + WINDOW_S) for one in known if one.backlogged(start, start + WINDOW_S)]
        if len(services) < 2:
            continue
        windows, most = windows + 1, max(most, len(services))
        if max(services) - min(services) > gap * WINDOW_S:
            gap, at = (max(services) - min(services)) / WINDOW_S, round(start - first, 3)
    return {
        "tenants": len(tenants),
        "window_s": WINDOW_S,
        "windows": windows,
        "backlogged": most,
        "gap_tokens_per_s": round(gap, 3) if windows else None,
        "gap_at_s": at,
    }


def sentence(name: str, result: Json) -> str:
    """For people, where some windows counted."""
    return (
        f"{name}: service of {result['backlogged']} waiting tenants at most {result['gap_tokens_per_s']:.0f} weighted tokens/s apart "
        f"over {WINDOW_S:.0f} s (worst of {result['windows']} windows)"
    )
