"""The requests that wait for one model: by priority, then fairly between tenants, then by latest start; with what each pushes back.

While all that wait are of one tenant and one priority, or the order of the configuration is by key alone, this is one heap. Else
they stand in a `Band` for each priority, and in one for each class with a floor.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from math import inf

from penstock.core.band import Band
from penstock.core.fairness import Account, Fairness
from penstock.core.flight import Flight
from penstock.core.floors import Floors
from penstock.core.supply import Supply
from penstock.core.work import SLOT_S, Work

LOOK_S = 0.02
"""How long the slack found is believed."""
STARVED_S = 30.0
"""A priority whose requests without a deadline have waited for this long on end is given a small share whatever else waits."""


class Queue:
    __slots__ = (
        "alone", "bands", "books", "expiry", "floored", "floors", "heap", "looked_at", "now", "only", "priorities", "size", "spread",
        "work",
    )  # fmt: skip

    def __init__(self, books: Fairness | None = None, shares: Mapping[str, float] | None = None) -> None:
        """`books` where order is fair between tenants or has to yield to deadlines; `shares` are the floors of classes."""
        self.heap: list[tuple[int, float, int, Flight]] = []
        self.expiry: list[tuple[float, int, Flight]] = []
        self.work: dict[int, Work] = {}
        self.size = 0
        self.books = books
        self.only: Account | None = None
        """Whose requests wait in the heap."""
        self.floors = Floors(shares or {})
        self.alone = Account("", 0)
        """The tenant of requests whose tenants are not told apart."""
        self.bands: dict[int, Band] = {}
        self.floored: dict[str, Band] = {}
        self.priorities: list[int] = []
        """Of the bands, the highest first."""
        self.spread = False
        self.now = self.looked_at = -inf

    def __len__(self) -> int:
        return self.size

    def push(self, flight: Flight) -> None:
        flight.waiting = True
        if not self.spread and self.books is not None and not self._alike(flight):
            self._spread()
        self.size += 1
        heappush(self.expiry, (flight.expires, flight.request.id, flight))
        work = self.work.get(flight.priority)
        if work is None:
            work = self.work[flight.priority] = Work()
        work.add(flight)
        if self.spread:
            self._seat(flight)
        else:
            self.put_back(flight)

    def remove(self, flight: Flight) -> None:
        """It waits no longer. Its heap entries are dropped when they surface, or when most entries are dead."""
        flight.waiting = False
        self.size -= 1
        work = self.work[flight.priority]
        work.take(flight)
        if self.spread:
            self._unseat(flight)
        if not work.count:
            del self.work[flight.priority]
        if len(self.heap) > 2 * self.size + 64 or len(self.expiry) > 2 * self.size + 64:
            self._compact()
        if self.spread and not self.size:
            self.spread = False

    def _compact(self) -> None:
        # A flight that was retried may stand in a heap twice; the entry of its latest push is the one to keep.
        self.heap = list({entry[2]: entry for entry in self.heap if entry[3].waiting}.values())
        self.expiry = list({entry[1]: entry for entry in self.expiry if entry[2].waiting and entry[2].expires == entry[0]}.values())
        heapify(self.heap)
        heapify(self.expiry)

    def pop(self) -> Flight | None:
        """The first waiting flight, still counted as waiting; `remove` it or `put_back`."""
        if self.spread:
            return self._pop_spread()
        while self.heap:
            flight = heappop(self.heap)[3]
            if flight.waiting:
                return flight
        return None

    def put_back(self, flight: Flight) -> None:
        if not self.spread:
            heappush(self.heap, (-flight.priority, flight.key, flight.request.id, flight))
            return
        self.bands[flight.priority].put_back(flight)
        if flight.task.name in self.floored:
            self.floored[flight.task.name].put_back(flight)
        flight.drawn = 0

    def pass_over(self, flight: Flight) -> None:
        """None of its tenant's requests is looked at until this one, popped before, is put back."""
        if self.spread:
            for band in (self.bands[flight.priority], self.floored.get(flight.task.name)):
                if band is not None:
                    band.pass_over(flight)

    # -- more than one order

    def _alike(self, flight: Flight) -> bool:
        """Whether one heap still serves all that wait, this one among them."""
        if self.floors.shares or flight.rank != flight.key:
            return False
        if not self.size:
            self.only = flight.account
            return True
        return flight.account is self.only and flight.priority in self.work

    def _spread(self) -> None:
        flights = self.flights()
        self.spread, self.heap = True, []
        self.bands, self.floored, self.priorities = {}, {}, []
        self.looked_at = -inf
        for flight in flights:
            self._seat(flight)

    def _seat(self, flight: Flight) -> None:
        assert self.books is not None
        flight.drawn, flight.payer = 0, flight.account or self.alone
        band = self.bands.get(flight.priority)
        if band is None:
            band = self.bands[flight.priority] = Band(self.books, 1)
            self.priorities = sorted(self.bands, reverse=True)
        if not band.work.count:
            band.since = flight.arrived
            self.floors.begins(flight.priority)
        band.push(flight)
        name = flight.task.name
        if name in self.floors.shares:
            floored = self.floored.get(name)
            if floored is None:
                floored = self.floored[name] = Band(self.books, 8)
            if not floored.work.count:
                self.floors.begins(name)
            floored.push(flight)

    def _unseat(self, flight: Flight) -> None:
        self.bands[flight.priority].remove(flight)
        floored = self.floored.get(flight.task.name)
        if floored is not None:
            floored.remove(flight)
        flight.drawn = 0

    def _pop_spread(self) -> Flight | None:
        owed = self._owed()
        flight = None if owed is None else owed.pop()
        if flight is None:
            for priority in self.priorities:
                flight = self.bands[priority].pop()
                if flight is not None:
                    break
        return flight

    def _owed(self) -> Band | None:
        """The band of the class, or of the starving priority, that is owed most of its share."""
        owed, chosen = 0.0, None
        for name, band in self.floored.items():
            if band.work.count and (short := self.floors.owed(name)) > owed:
                owed, chosen = short, band
        for priority in self.priorities[1:]:
            band = self.bands[priority]
            if band.work.count > band.work.promised and self.now - band.since > STARVED_S and (short := self.floors.owed(priority)) > owed:
                owed, chosen = short, band
        return chosen

    def dispatched(self, flight: Flight, tokens: float, now: float) -> None:
        """A request of the lane was forwarded, whether it waited or not; `tokens` is its work."""
        if self.spread or self.floors.shares:
            self.floors.dispatched(flight.task.name, flight.priority, tokens, now)

    def recalled(self, flight: Flight, tokens: float) -> None:
        if self.spread or self.floors.shares:
            self.floors.returned(flight.task.name, flight.priority, tokens)

    def promised_share(self, name: str) -> float:
        """Share of the work that floors promise to waiting classes other than `name`."""
        return sum(self.floors.shares[other] for other, band in self.floored.items() if other != name and band.work.count)

    def looks_stale(self, now: float) -> bool:
        """A pass begins; whether `look` must be told the supply again."""
        self.now = now
        return self.spread and now - self.looked_at > LOOK_S

    def look(self, supply: Supply) -> None:
        """Find the slack, where so much can be done."""
        self.looked_at = self.now
        ahead_s = 0.0
        for priority in self.priorities:
            band = self.bands[priority]
            band.slack_s = band.work.slack(-inf, ahead_s, supply) if band.work.promised else inf
            ahead_s += band.work.seconds
        for floored in self.floored.values():
            floored.slack_s = floored.work.slack(-inf, 0.0, supply) if floored.work.promised else inf

    # -- what admission asks

    def next_expiry(self) -> float:
        expiry = self.expiry
        # One that was retried may stand here twice; its latest time is the one that counts.
        while expiry and not (expiry[0][2].waiting and expiry[0][2].expires == expiry[0][0]):
            heappop(expiry)
        return expiry[0][0] if expiry else inf

    def pop_expired(self, now: float) -> Flight | None:
        """A flight whose time is over, no longer waiting."""
        if self.next_expiry() > now:
            return None
        flight = heappop(self.expiry)[2]
        self.remove(flight)
        return flight

    def ahead(self, priority: int, key: float) -> tuple[int, float]:
        """Requests, and their predicted prefill seconds, that go before one with this priority and key, tenants aside."""
        count, seconds = 0, 0.0
        for band, work in self.work.items():
            if band > priority:
                count += work.count
                seconds += work.seconds
            elif band == priority:
                requests, until_s = work.until(key)
                count += requests
                seconds += until_s
        return count, seconds

    def place(self, flight: Flight, now: float) -> tuple[int, float]:
        """Requests up to and with this one, which waits, and their seconds of prefill, turns between tenants included."""
        if not self.spread or self.bands[flight.priority].slack_s < flight.own_s:
            return self.ahead(flight.priority, flight.key)
        count, seconds = self.ahead(flight.priority, -inf)
        own_count, own_s = self.bands[flight.priority].before(flight, now)
        return count + round(own_count), seconds + own_s

    def slack_after(self, priority: int, key: float, ahead_s: float, supply: Supply) -> float:
        """The least time, in seconds of work, by which promised requests behind this key and of its priority start before their key."""
        work = self.work.get(priority)
        return inf if work is None else work.slack(key // SLOT_S, ahead_s, supply)

    def work_s(self) -> float:
        """Predicted prefill seconds of all that wait."""
        return sum(work.seconds for work in self.work.values())

    def flights(self) -> list[Flight]:
        """All that wait, in no order."""
        if not self.spread:
            return list({entry[2]: entry[3] for entry in self.heap if entry[3].waiting}.values())
        seats = (seat for band in self.bands.values() for seat in band.seats.values())
        return list({entry[1]: entry[2] for seat in seats for entry in seat.heap if entry[2].waiting}.values())
