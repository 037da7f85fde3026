"""Results by task class, by the rules of the configuration, whoever scheduled the requests.

- requests, admitted, completed; refused: at once or from the queue; other: admitted, but failed or left by the caller.
- goodput: share of the class's requests whose answer kept what the class promises.
- work: the class's share of the tokens that nodes computed for completed requests (prompt tokens not cached, and output tokens).
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.core.classify import Classifier
from penstock.facts import Outcome
from penstock.sim import slo
from penstock.sim.spread import ratio, spread
from penstock.sim.world import REFUSED, Trip, World


class Group(msgspec.Struct, frozen=True):
    name: str
    priority: int
    slo: slo.Slo
    trips: list[Trip]


def sorted_by_class(world: World) -> list[Group]:
    """All trips by the class that they belong to, in the order of the rules; empty where no rules were given."""
    if not world.setting.classes:
        return []
    classify = Classifier(world.setting.classes)
    groups = {task.name: Group(task.name, task.priority, slo.of(task), []) for task in classify.classes}
    for id, trip in enumerate(world.trips):
        groups[classify(world.request(id)).name].trips.append(trip)
    return [group for group in groups.values() if group.trips]


def by_class(groups: list[Group], good: set[int]) -> list[dict[str, Any]]:
    whole = sum(computed(trip) for group in groups for trip in group.trips)
    return [row(group, good, whole) for group in groups]


def row(group: Group, good: set[int], whole: int) -> dict[str, Any]:
    trips = group.trips
    done = [trip for trip in trips if trip.outcome is Outcome.COMPLETED]
    refused = sum(trip.outcome in REFUSED for trip in trips)
    return {
        "class": group.name,
        "priority": group.priority,
        "requests": len(trips),
        "admitted": len(trips) - refused,
        "completed": len(done),
        "refused": refused,
        "other": len(trips) - len(done) - refused,
        "goodput": ratio(sum(id(trip) in good for trip in trips), len(trips)),
        "ttft_s": spread([trip.first_at - trip.arrival.at_s for trip in done], (50, 99)),
        "whole_s": spread([trip.ended_at - trip.arrival.at_s for trip in done], (50, 99)),
        "work": ratio(sum(computed(trip) for trip in done), whole),
    }


def computed(trip: Trip) -> int:
    """Tokens that a node computed for it."""
    return trip.arrival.prompt_tokens - trip.cached_tokens + trip.arrival.output_tokens if trip.outcome is Outcome.COMPLETED else 0
