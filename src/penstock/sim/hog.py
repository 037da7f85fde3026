"""One tenant at many times its rate, and what that does to the others."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import msgspec
import xxhash

from penstock.errors import TraceError
from penstock.facts import Outcome
from penstock.sim.arrival import Arrival
from penstock.sim.report import seconds, ttft
from penstock.sim.spread import rounded, spread
from penstock.sim.world import Trip, World

Json = dict[str, Any]


class Hog(msgspec.Struct, frozen=True):
    tenant: str
    factor: int
    from_s: float = 0.0
    """Before, it asks for no more than ever; only what the others ask for from then on counts."""


def parse(text: str, tenants: set[str]) -> Hog:
    """`TENANT:FACTOR`, or `TENANT:FACTOR@SECONDS`. Raises TraceError."""
    tenant, colon, rest = text.rpartition(":")
    factor, at, start = rest.partition("@")
    number, from_s = finite(factor), finite(start) if at else 0.0
    if not colon or number is None or number != int(number) or not 2 <= number <= 10_000 or from_s is None or from_s < 0.0:
        raise TraceError(
            f"--hog {text}: expected TENANT:FACTOR, a whole number from 2 to 10000, such as {min(tenants, default='web')}:100, "
            "and @SECONDS behind it if it is to begin later"
        )
    if tenant not in tenants:
        known = ", ".join(sorted(tenants)[:20])
        raise TraceError(f"--hog {text}: no tenant {tenant!r}; there are: {known}")
    return Hog(tenant, int(number), from_s)


def finite(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None


def grown(arrivals: Sequence[Arrival], hog: Hog) -> list[Arrival]:
    """The tenant's own arrivals at `factor` times their rate: over and over, each round in that part of the time, prompts told apart."""
    own = [arrival for arrival in arrivals if arrival.tenant == hog.tenant]
    span = max(arrival.at_s for arrival in arrivals) if arrivals else 0.0
    more = [again(arrival, round_, hog, span) for round_ in range(hog.factor) for arrival in own]
    if hog.from_s:
        more = [arrival for arrival in own if arrival.at_s < hog.from_s] + [arrival for arrival in more if arrival.at_s >= hog.from_s]
    more += [arrival for arrival in arrivals if arrival.tenant != hog.tenant]
    return sorted(more, key=lambda arrival: arrival.at_s)


def again(arrival: Arrival, round_: int, hog: Hog, span: float) -> Arrival:
    blocks = tuple(xxhash.xxh3_64_intdigest(f"{round_} {block}".encode()) for block in arrival.blocks) if round_ else arrival.blocks
    session = f"{arrival.session} {round_}" if round_ and arrival.session else arrival.session
    return msgspec.structs.replace(arrival, at_s=(arrival.at_s + round_ * span) / hog.factor, blocks=blocks, session=session)


def others(world: World, hog: Hog) -> Json:
    """How the other tenants fared."""
    trips: list[Trip] = [trip for trip in world.trips if trip.arrival.tenant != hog.tenant and trip.arrival.at_s >= hog.from_s]
    done = [trip for trip in trips if trip.outcome is Outcome.COMPLETED]
    return {"requests": len(trips), "completed": len(done), "ttft_s": spread([ttft(trip) for trip in done], (50, 99))}


def effect(before: World, after: World, hog: Hog) -> Json:
    """The others without and with the hog; `p99` is the second's time to first token over the first's."""
    quiet, beside = others(before, hog), others(after, hog)
    p99, p99_beside = quiet["ttft_s"]["p99"], beside["ttft_s"]["p99"]
    return {
        "tenant": hog.tenant,
        "factor": hog.factor,
        "others": quiet,
        "others_beside_it": beside,
        "p99": None if not p99 or p99_beside is None else rounded(p99_beside / p99),
    }


def sentence(name: str, result: Json) -> str:
    """For people."""
    quiet, beside = result["others"], result["others_beside_it"]
    ratio = "-" if result["p99"] is None else f"{result['p99']:.2f}"
    return (
        f"{name}: beside {result['tenant']} at {result['factor']} times its rate the other tenants' TTFT p99 is {ratio} times what it was "
        f"({seconds(quiet['ttft_s']['p99'])} -> {seconds(beside['ttft_s']['p99'])}), "
        f"{beside['completed']:,} of their {beside['requests']:,} requests completed"
    )
