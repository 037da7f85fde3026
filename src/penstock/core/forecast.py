"""When a waiting request will leave the queue, from what waits, what comes and how fast the queue drains.

Before it goes what waits ahead of it, what comes of higher priorities meanwhile, and of every other tenant of its priority as much as
that one asks for, waiting or to come, until its turn would be later than this one's. That is an equation for the wait: the work that
goes before it grows with it, but more slowly than the queue drains.
"""

from __future__ import annotations

from penstock.core.band import SEATS, Band, payer
from penstock.core.demand import Demands
from penstock.core.drain import Drain
from penstock.core.flight import Flight
from penstock.core.queue import Queue
from penstock.core.work import Work

LEAST_SHARE = 0.1
"""Of the drain, what is taken to be left whatever comes above."""
STEPS = 6

Rival = tuple[float, float, float]
"""Of another tenant, in seconds of drain: what waits, what comes a second, and the most that goes before."""


class Pace:
    """Requests and their prefill as seconds of drain: by requests where slots or memory limit, by prefill where that does."""

    __slots__ = ("per_request", "per_second")

    def __init__(self, drain: Drain, known: bool = True) -> None:
        rate, work = drain.rate, drain.work_rate if known else 0.0
        blocked = drain.blocked if work > 0.0 else 1.0
        self.per_request = blocked / rate
        self.per_second = (1.0 - blocked) / work if work > 0.0 else 0.0

    def of(self, count: float, seconds: float) -> float:
        return self.per_request * count + self.per_second * seconds


def wait_s(queue: Queue, drain: Drain, demands: Demands, flight: Flight, now: float) -> float | None:
    """Seconds until it leaves the queue; None while it is not known how fast that drains."""
    if drain.rate <= 0.0:
        return None
    pace = Pace(drain, not flight.lane.learned())
    left = max(LEAST_SHARE, 1.0 - pace.of(*demands.above(flight.priority, now)))
    first = 0.0
    for priority, work in queue.work.items():
        if priority > flight.priority:
            first += pace.of(work.count, work.seconds)
    if not queue.spread:
        return (first + pace.of(*queue.work[flight.priority].before(flight))) / left
    band = queue.bands[flight.priority]
    if band.slack_s < flight.own_s:
        return (first + pace.of(*band.work.before(flight))) / left
    return solve(first + pace.of(*band.seats[payer(flight)].work.before(flight)), left, rivals(band, flight, pace, demands, now))


def rivals(band: Band, flight: Flight, pace: Pace, demands: Demands, now: float) -> list[Rival]:
    account, books = payer(flight), band.books
    seat = band.seats[account]
    own, _ = seat.work.before(flight)
    each = seat.tokens / seat.work.count
    tokens = each * max(0.0, own - 1)
    one = books.scale(now)
    found: list[Rival] = []
    for (priority, name), demand in demands.groups.items():
        if priority != flight.priority or name == account.name:
            continue
        other = books.accounts.get(name)
        if other is None:
            continue
        at = band.seats.get(other)
        comes = pace.of(*demand.rates(now))
        if at is None:
            # Level with the least, as it will be when its next comes in.
            lead = tokens + max(0.0, account.counter - other.counter) / one
            found.append((0.0, comes, max(0.0, lead) * pace.of(demand.came, demand.work_s) / max(1e-9, demand.tokens)))
            continue
        lead = tokens + (account.counter - other.counter) / one
        waits = pace.of(at.work.count, at.work.seconds)
        most = max(0.0, lead) * waits / max(1e-9, at.tokens)
        if account.counter > other.counter:
            most = max(most, 0.5 * waits / at.work.count)
        found.append((waits, comes, most))
    return found


def solve(first: float, left: float, others: list[Rival]) -> float:
    """The wait with `left * wait = first + sum of min(waits + comes * wait, most)`: the right side is concave, so Newton's
    steps from above fall to it without passing it."""
    wait = (first + sum(most for _, _, most in others)) / left
    for _ in range(STEPS):
        fixed, slope = first, left
        for waits, comes, most in others:
            if waits + comes * wait < most:
                fixed += waits
                slope -= comes
            else:
                fixed += most
        if slope <= 0.0 or (nearer := fixed / slope) >= wait * 0.999:
            break
        wait = nearer
    return wait
