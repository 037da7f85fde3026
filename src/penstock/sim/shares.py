"""Whom the fleet served least of what was due to it.

What is due to each of several is found by filling up: nobody more than it asked for, else all the same, and together what was
served. Service is input + `OUTPUT_WEIGHT` x output tokens of good answers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from penstock.core.fairness import OUTPUT_WEIGHT
from penstock.sim.spread import rounded
from penstock.sim.world import Trip

Json = dict[str, Any]

FEW = 20
"""Of fewer requests the share served is chance."""


def shares(groups: Mapping[str, Iterable[Trip]], good: Collection[int]) -> Json | None:
    """The least served of the groups of `FEW` requests and more; None where there is one group."""
    asked, served, counts = {}, {}, {}
    for name, trips in groups.items():
        whole = [(weight(trip), id(trip) in good) for trip in trips]
        asked[name], served[name] = sum(tokens for tokens, _ in whole), sum(tokens for tokens, kept in whole if kept)
        counts[name] = len(whole)
    if len(asked) < 2 or not sum(served.values()):
        return None
    most = level(list(asked.values()), sum(served.values()))
    found = {name: served[name] / min(tokens, most) for name, tokens in asked.items() if counts[name] >= FEW}
    if not found:
        return None
    least = min(found, key=found.__getitem__)
    return {"groups": len(asked), "least": least, "requests": counts[least], "share": rounded(found[least])}


def by_tenant(trips: Iterable[Trip]) -> dict[str, list[Trip]]:
    found: dict[str, list[Trip]] = {}
    for trip in trips:
        found.setdefault(trip.arrival.tenant, []).append(trip)
    return found


def weight(trip: Trip) -> float:
    return trip.arrival.prompt_tokens + OUTPUT_WEIGHT * trip.arrival.output_tokens


def level(asked: list[float], served: float) -> float:
    """What nobody is due more than, so that all that is due is as much as was served."""
    left = served
    for at, tokens in enumerate(sorted(asked)):
        if tokens * (len(asked) - at) >= left:
            return left / (len(asked) - at)
        left -= tokens
    return max(asked)
