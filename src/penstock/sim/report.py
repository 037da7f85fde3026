"""What a simulation showed, as JSON keys and as a picture for a terminal.

Definitions, times in seconds:

- ttft: from a request's arrival to its first token, waiting at the gateway included; over completed requests.
- tpot: a request's mean time between tokens; answers of one token are left out. itl: single gaps between tokens.
- goodput: share of all requests, refused and failed ones among them, that finish inside the objective.
- good_per_s: good answers served a second between a tenth of the way from the first arrival to the last and the last arrival.
  One that is written only partly inside counts by the part of its writing that is. So neither the filling of an idle fleet,
  which takes a batch of answers at no cost to others, nor a run's end, in which answers are written out but none begin, nor a
  backlog served after the last arrival makes a short trace look better or worse than a long one.
- good_work_per_s: the same of their service, input + 2 x output tokens, so that it says nothing of which of them were served.
- busy, utilisation, output_tokens_per_s: over the whole time, first arrival to last end. busy: share of the nodes' time spent
  in steps. utilisation: the time that the completed requests' tokens would take at the best batch (`best_s`) over the nodes' time.
- memory: of the nodes' KV memory, the shares that the ledger had reserved and that running sequences held, over the node-seconds
  in which requests waited for memory; rounding: reserved only because pages are whole.
- preempted: times that an engine took a running sequence's memory for another's want of it.
- fairness: see `sim.fairness`; None where there is one tenant.
- least_served: see `sim.shares`; of tenants and of classes, None where there is one.
- whole_s: from a request's arrival to its last token; over completed requests.
- prefix_hit: prompt tokens found in a cache over prompt tokens, of the requests that ran to their end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from penstock.engine.histogram import Histogram
from penstock.facts import Outcome, Profile
from penstock.sim.fairness import fairness
from penstock.sim.matrix import by_class, sorted_by_class
from penstock.sim.shares import by_tenant, shares, weight
from penstock.sim.slo import Slo
from penstock.sim.spread import ratio, rounded, spread
from penstock.sim.world import REFUSED, Trip, World

if TYPE_CHECKING:
    from rich.table import Table

Json = dict[str, Any]


def summary(name: str, world: World, slo: Slo) -> Json:
    """One preset's results. None stands where there is nothing to measure."""
    trips = world.trips
    done = [trip for trip in trips if trip.outcome is Outcome.COMPLETED]
    classes = sorted_by_class(world)
    good = judged(done, slo) if not classes else {one for group in classes for one in judged(completed(group.trips), group.slo)}
    met = [trip for trip in done if id(trip) in good]
    first = min((trip.arrival.at_s for trip in trips), default=0.0)
    last = max((trip.arrival.at_s for trip in trips), default=0.0)
    whole = max((trip.ended_at for trip in trips), default=0.0) - first
    node_s = whole * len(world.machines)
    return {
        "preset": name,
        "requests": len(trips),
        "completed": len(done),
        "refused": sum(trip.outcome in REFUSED for trip in trips),
        "diverted": sum(trip.outcome is Outcome.DIVERTED for trip in trips),
        "goodput": ratio(len(good), len(trips)),
        "good_per_s": per_s(met, first, last),
        "good_work_per_s": per_s(met, first, last, weight),
        "ttft_s": spread([ttft(trip) for trip in done], (50, 90, 99)),
        "tpot_s": spread([value for trip in done if (value := tpot(trip)) is not None], (50, 99)),
        "itl_s": itl(world),
        "busy": ratio(sum(machine.busy_s(first + whole) for machine in world.machines), node_s),
        "utilisation": ratio(sum(best_s(machine.profile, _of(done, machine.index)) for machine in world.machines), node_s),
        "prefix_hit": ratio(sum(trip.cached_tokens for trip in done), sum(trip.arrival.prompt_tokens for trip in done)),
        "memory": memory(world),
        "preempted": sum(machine.preempted() for machine in world.machines),
        "output_tokens_per_s": ratio(sum(trip.arrival.output_tokens for trip in done), whole),
        "by_prompt_length": by_prompt_length(trips, good),
        "fairness": fairness(trips),
        "least_served": {"tenants": shares(by_tenant(trips), good), "classes": shares({one.name: one.trips for one in classes}, good)},
        "whole_s": spread([whole_s(trip) for trip in done], (50, 99)),
        "by_class": by_class(classes, good),
    }


WARM = 0.1
"""Share of the time between first and last arrival in which the fleet fills."""


def each(_: Trip) -> float:
    return 1.0


def per_s(met: Sequence[Trip], first: float, last: float, worth: Callable[[Trip], float] = each) -> float | None:
    """Good answers a second, or what they are worth, see above; over the whole time where all came at once."""
    start, stop = first + WARM * (last - first), last
    if stop <= start:
        start, stop = first, max((trip.ended_at for trip in met), default=first)
    return ratio(sum(worth(trip) * inside(trip.first_at, trip.ended_at, start, stop) for trip in met), stop - start)


def inside(begin: float, end: float, start: float, stop: float) -> float:
    """The share of begin..end that lies in start..stop."""
    if end <= begin:
        return float(start < end <= stop)
    return max(0.0, min(end, stop) - max(begin, start)) / (end - begin)


def memory(world: World) -> Json:
    """KV memory over the seconds in which requests waited for it and slots were free; see the definitions above."""
    use = world.memory
    return {
        "limited_node_s": use.seconds,
        "reserved": ratio(use.reserved, use.tokens),
        "used": ratio(use.used, use.tokens),
        "used_of_reserved": ratio(use.used, use.reserved),
        "rounding": ratio(use.rounding, use.tokens),
    }


def completed(trips: Iterable[Trip]) -> list[Trip]:
    return [trip for trip in trips if trip.outcome is Outcome.COMPLETED]


def judged(done: Iterable[Trip], slo: Slo) -> set[int]:
    """Those that kept the objective, by identity."""
    return {id(trip) for trip in done if slo.met(trip.arrival.prompt_tokens, ttft(trip), tpot(trip), whole_s(trip))}


def ttft(trip: Trip) -> float:
    return trip.first_at - trip.arrival.at_s


def whole_s(trip: Trip) -> float:
    return trip.ended_at - trip.arrival.at_s


def tpot(trip: Trip) -> float | None:
    tokens = trip.arrival.output_tokens
    return (trip.ended_at - trip.first_at) / (tokens - 1) if tokens > 1 else None


def best_s(profile: Profile, done: Sequence[Trip]) -> float:
    """Least node time for these requests' tokens: as many sequences decode together as there are slots and KV memory for.

    Prefill rides on the same steps. c0 is paid once a step; there are as many steps as decoding at the best batch takes, or as
    prefill in full chunks takes, whichever are more.
    """
    if not done:
        return 0.0
    # An answer's first token comes with its prefill.
    outputs = sum(trip.arrival.output_tokens - 1 for trip in done)
    prompts = sum(trip.arrival.prompt_tokens - trip.cached_tokens for trip in done)
    context = sum((trip.arrival.output_tokens - 1) * (trip.arrival.prompt_tokens + trip.arrival.output_tokens / 2) for trip in done)
    batch = max(1.0, min(profile.max_sequences, profile.kv_tokens * outputs / context)) if context else 1.0
    steps = max(outputs / batch, prompts / profile.chunk_tokens)
    return profile.c0_s * steps + profile.c1_s * outputs + profile.c2_s * context + profile.c3_s * prompts


def by_prompt_length(trips: Sequence[Trip], good: set[int]) -> list[Json]:
    """Goodput of each quarter of all requests, from the shortest prompts to the longest."""
    ordered = sorted(trips, key=lambda trip: trip.arrival.prompt_tokens)
    cuts = [len(ordered) * quarter // 4 for quarter in range(5)]
    parts = [ordered[start:end] for start, end in pairwise(cuts) if end > start]
    return [
        {
            "prompt_tokens": [part[0].arrival.prompt_tokens, part[-1].arrival.prompt_tokens],
            "requests": len(part),
            "goodput": ratio(sum(id(trip) in good for trip in part), len(part)),
        }
        for part in parts
    ]


def itl(world: World) -> Json:
    gaps = Histogram()
    for machine in world.machines:
        gaps.merge(machine.itl())
    return {f"p{percent}": rounded(gaps.quantile(percent / 100)) if gaps.count else None for percent in (50, 99)}


def _of(trips: Iterable[Trip], node: int) -> list[Trip]:
    return [trip for trip in trips if trip.node == node]


BAR = 24
PARTS = " ▏▎▍▌▋▊▉█"


def table(results: Sequence[Json]) -> Table:
    """Presets as rows, with a bar for goodput."""
    from rich.table import Table

    lines = Table(box=None, padding=(0, 1), header_style="bold")
    lines.add_column("preset", no_wrap=True)
    for heading in ("goodput", "", "good/s", "refused", "TTFT p50", "p99", "TPOT p50", "p99", "cached", "busy"):
        lines.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    best = max((result["goodput"] or 0.0 for result in results), default=0.0)
    for result in results:
        goodput = result["goodput"] or 0.0
        lines.add_row(
            result["preset"],
            percent(goodput),
            bar(goodput),
            number(result["good_per_s"]),
            percent(result["refused"] / result["requests"]) if result["requests"] else "-",
            seconds(result["ttft_s"]["p50"]),
            seconds(result["ttft_s"]["p99"]),
            seconds(result["tpot_s"]["p50"]),
            seconds(result["tpot_s"]["p99"]),
            percent(result["prefix_hit"]),
            percent(result["busy"]),
            style="bold" if goodput == best and len(results) > 1 else "",
        )
    return lines


def bar(share: float) -> str:
    eighths = round(max(0.0, min(1.0, share)) * BAR * 8)
    full, part = divmod(eighths, 8)
    return (PARTS[8] * full + (PARTS[part] if part else "")).ljust(BAR, "·")


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1e3:.0f} ms" if value < 1.0 else f"{value:.3g} s"
