"""When a waiting request will leave the queue, from what waits, what comes and how fast the queue drains.

Before it goes what waits ahead of it, what comes of higher priorities meanwhile, and of every other tenant of its priority as much as
that one asks for, waiting or to come, until its turn would be later than this one's. That is an equation for the wait: the work that
goes before it grows with it, but more slowly than the queue drains. Floors and the nodes that a flood is kept off are in no equation:
where there is more than one order, the middle of that wait and of what the pace of its tenant's own requests tells (`turnout`) is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.core.band import Band, payer
from penstock.core.drain import Drain
from penstock.core.flight import Flight

if TYPE_CHECKING:
    from penstock.core.lane import Lane

LEAST_SHARE = 0.1
"""Of the drain, what a priority is taken to be left with, whatever comes above it."""
RIVALS = 64
"""Of more tenants, as many are looked at and stand for the rest."""
STEPS = 8

Rival = tuple[float, float, float]
"""Of another tenant, in seconds of drain: what waits, what comes a second, and the most that goes before."""


class Pace:
    """Requests and their prefill as seconds of drain: by requests where slots or memory limit, by prefill where that does.

    Of nodes of which nothing is known prefill is a guess that drifts: there all requests count alike.
    """

    __slots__ = ("per_request", "per_second")

    def __init__(self, drain: Drain, known: bool) -> None:
        rate, work = drain.steady
        blocked = drain.blocked if known and work > 0.0 else 1.0
        self.per_request = blocked / rate
        self.per_second = (1.0 - blocked) / work if blocked < 1.0 else 0.0

    def of(self, count: float, seconds: float) -> float:
        return self.per_request * count + self.per_second * seconds


def wait_s(lane: Lane, flight: Flight, now: float) -> float | None:
    """Seconds until it leaves the lane's queue; None while it is not known how fast that drains."""
    if lane.drain.steady[0] <= 0.0:
        return None
    queue, pace = lane.queue, Pace(lane.drain, not lane.learned())
    left = max(LEAST_SHARE, 1.0 - pace.of(*lane.demands.above(flight.priority, now)))
    first = sum(pace.of(work.count, work.seconds) for priority, work in queue.work.items() if priority > flight.priority)
    if not queue.spread:
        return (first + pace.of(*queue.work[flight.priority].before(flight))) / left
    band = queue.bands[flight.priority]
    if band.slack_s < flight.own_s:
        # Deadlines are near: it goes by latest start, whoever its tenant is.
        return (first + pace.of(*band.work.before(flight))) / left
    own, own_s = band.seats[payer(flight)].work.before(flight)
    wait = solve(first + pace.of(own, own_s), left, rivals(lane, band, flight, own, pace, now))
    by_turns = lane.turnouts.wait_s((flight.priority, flight.request.tenant), own, now)
    return wait if by_turns is None else (wait * by_turns) ** 0.5


def rivals(lane: Lane, band: Band, flight: Flight, own: float, pace: Pace, now: float) -> list[Rival]:
    """The other tenants of its priority. Each goes first until its counter passes what this one's will be when its turn comes."""
    account, books = payer(flight), band.books
    seat = band.seats[account]
    tokens = seat.tokens / seat.work.count * (own - 1.0)
    one = books.scale(now)
    found: list[Rival] = []
    tenants = lane.demands.tenants.get(flight.priority, {})
    for other, demand in tenants.items():
        if other is account:
            continue
        lead = tokens + (account.counter - other.counter) / one
        comes = pace.of(*demand.rates(now))
        theirs = band.seats.get(other)
        if theirs is None:
            # When its next comes in it is lifted to the level of the others.
            most = max(tokens, lead) / demand.tokens * pace.of(demand.count, demand.work_s) if demand.tokens else 0.0
            found.append((0.0, comes, most))
        else:
            waits = pace.of(theirs.work.count, theirs.work.seconds)
            most = max(0.0, lead) / theirs.tokens * waits if theirs.tokens else waits
            if account.counter > other.counter:
                # A turn is a whole request.
                most = max(most, 0.5 * waits / theirs.work.count)
            found.append((waits, comes, most))
        if len(found) == RIVALS:
            more = (len(tenants) - 1) / RIVALS
            return [(more * waits, more * comes, more * most) for waits, comes, most in found]
    return found


def solve(first: float, left: float, others: list[Rival]) -> float:
    """The wait with `left * wait = first + sum of min(waits + comes * wait, most)`.

    The right side is concave, so Newton's steps from above fall to the solution without passing it.
    """
    wait = (first + sum(most for _, _, most in others)) / left
    for _ in range(STEPS):
        fixed, slope = first, left
        for waits, comes, most in others:
            if waits + comes * wait < most:
                fixed += waits
                slope -= comes
            else:
                fixed += most
        if slope <= 0.0 or fixed >= 0.999 * wait * slope:
            break
        wait = fixed / slope
    return wait
