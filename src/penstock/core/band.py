"""Waiting requests of one priority, or of one class with a floor, where more than one order counts among them.

Two orders stand side by side: turns between tenants (the account with the least counter, then the rank inside it), and the
latest starts of those with a deadline. Turns are taken while slack allows; then the latest start that comes first goes first.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf

from penstock.core.charge import cost
from penstock.core.fairness import Account, Fairness, Ranks
from penstock.core.flight import Flight
from penstock.core.work import Work

SIZES = 48
"""Tenants are told apart by the size of what waits for them, in powers of two of a millisecond."""

SEATS = 64
"""Up to so many tenants are looked at one by one to tell a place."""

Entry = tuple[float, int, Flight]


class Seat:
    """One tenant's waiting requests in a band."""

    __slots__ = ("account", "heap", "tokens", "work")

    def __init__(self, account: Account) -> None:
        self.account = account
        self.tokens = 0.0
        """Weighted tokens that wait."""
        self.heap: list[Entry] = []
        self.work = Work()


class Band:
    """`bit` and the two next mark, in `Flight.drawn`, that an entry was taken out of the first or second of its heaps, and that
    its tenant was passed over.
    """

    __slots__ = (
        "books",
        "counts",
        "passed",
        "pressed",
        "pressing",
        "ranks",
        "seats",
        "since",
        "slack_s",
        "sums",
        "tenants",
        "turned",
        "work",
    )

    def __init__(self, books: Fairness, bit: int) -> None:
        self.books = books
        self.turned, self.pressed, self.passed = bit, 2 * bit, 4 * bit
        self.seats: dict[Account, Seat] = {}
        self.ranks = Ranks(books)
        self.pressing: list[Entry] = []
        self.work = Work()
        self.tenants = [0] * SIZES
        self.counts = [0] * SIZES
        self.sums = [0.0] * SIZES
        self.since = 0.0
        """Since when some of it waits."""
        self.slack_s = inf
        """Seconds of work that may go before the earliest latest start, as last looked at."""

    def push(self, flight: Flight) -> None:
        account = payer(flight)
        seat = self.seats.get(account)
        if seat is None:
            seat = self.seats[account] = Seat(account)
            # One that was below the others goes before those of its new level; else the deadline decides between equals.
            self.ranks.join(account, -inf if self.books.lift(account, self.ranks) else flight.rank)
        else:
            self._weigh(seat, -1)
        seat.work.add(flight)
        seat.tokens += cost(flight)
        self.work.add(flight)
        self._weigh(seat, 1)
        heappush(seat.heap, (flight.rank, flight.request.id, flight))
        if flight.due < inf:
            heappush(self.pressing, (flight.key, flight.request.id, flight))

    def remove(self, flight: Flight) -> None:
        """It waits no longer; its entries are dropped when they surface, or when most are dead."""
        account = payer(flight)
        seat = self.seats[account]
        if flight.drawn & self.turned:
            self.slack_s -= flight.own_s
        self._weigh(seat, -1)
        seat.work.take(flight)
        seat.tokens -= cost(flight)
        self.work.take(flight)
        if not seat.work.count:
            del self.seats[account]
            self.ranks.leave(account)
        else:
            self._weigh(seat, 1)
            if len(seat.heap) > 2 * seat.work.count + 16:
                seat.heap = compacted(seat.heap)
        if len(self.pressing) > 2 * self.work.count + 64:
            self.pressing = compacted(self.pressing)

    def pop(self) -> Flight | None:
        """The next one: in turn, or the one with the earliest latest start where the turn would take more than the slack."""
        flight = self._turn()
        if flight is None:
            return None
        if flight.own_s > self.slack_s:
            urgent = surfaced(self.pressing, self.pressed)
            if urgent is not None and urgent is not flight:
                heappop(self.pressing)
                urgent.drawn |= self.pressed
                return urgent
        heappop(self.seats[payer(flight)].heap)
        flight.drawn |= self.turned
        return flight

    def pass_over(self, flight: Flight) -> None:
        flight.drawn |= self.passed
        self.ranks.leave(payer(flight))

    def put_back(self, flight: Flight) -> None:
        account = payer(flight)
        if flight.drawn & self.turned:
            heappush(self.seats[account].heap, (flight.rank, flight.request.id, flight))
        if flight.drawn & (self.turned | self.passed):
            self.ranks.join(account)
        if flight.drawn & self.pressed:
            heappush(self.pressing, (flight.key, flight.request.id, flight))

    def before(self, flight: Flight, now: float) -> tuple[float, float]:
        """Requests and seconds that go before one that waits, up to and with itself, in a fluid picture of the turns.

        Each other tenant is served until its counter passes what this one's will be. Of very many they are taken to be level.
        """
        account = payer(flight)
        seat = self.seats[account]
        own_count, own_s = seat.work.until(flight.key)
        if len(self.seats) > SEATS:
            count, seconds = self._level_others(seat, own_s)
            return own_count + count, own_s + seconds
        tokens = seat.tokens / seat.work.count * max(0, own_count - 1)
        one = self.books.scale(now)
        count, seconds = float(own_count), own_s
        for other in self.seats.values():
            if other is not seat and other.tokens > 0.0:
                share = min(1.0, max(0.0, tokens + (account.counter - other.account.counter) / one) / other.tokens)
                # A turn is a whole request.
                share = max(share, min(1.0, 0.5 / other.work.count)) if account.counter > other.account.counter else share
                count += other.work.count * share
                seconds += other.work.seconds * share
        return count, seconds

    def _level_others(self, own: Seat, before_s: float) -> tuple[float, float]:
        """Requests and seconds of other tenants where each gets as much as this one's `before_s`, or all it asks for."""
        count = seconds = 0.0
        for tenants, requests, total in zip(self.tenants, self.counts, self.sums, strict=True):
            if tenants:
                share = min(1.0, before_s * tenants / total) if total > 0.0 else 1.0
                count += requests * share
                seconds += total * share
        share = min(1.0, before_s / own.work.seconds) if own.work.seconds > 0.0 else 1.0
        return max(0.0, count - own.work.count * share), max(0.0, seconds - own.work.seconds * share)

    def _weigh(self, seat: Seat, sign: int) -> None:
        work = seat.work
        size = min(SIZES - 1, int(work.seconds * 1e3).bit_length())
        self.tenants[size] += sign
        self.counts[size] += sign * work.count
        self.sums[size] = self.sums[size] + sign * work.seconds if self.tenants[size] else 0.0

    def _turn(self) -> Flight | None:
        """The flight whose turn it is, still in its heap."""
        while (account := self.ranks.first()) is not None:
            heap = self.seats[account].heap
            flight = surfaced(heap, self.turned)
            if flight is not None:
                return flight
            # All of its requests are being looked at in this pass.
            self.ranks.leave(account)
        return None


def payer(flight: Flight) -> Account:
    assert flight.payer is not None, "it has a seat"
    return flight.payer


def surfaced(heap: list[Entry], bit: int) -> Flight | None:
    """The first flight of the heap that waits and is not being looked at. One that is leaves the heap until it is put back."""
    while heap:
        flight = heap[0][2]
        if flight.waiting and not flight.drawn:
            return flight
        heappop(heap)
        if flight.waiting:
            flight.drawn |= bit
    return None


def compacted(heap: list[Entry]) -> list[Entry]:
    """Without the dead. A flight that was retried may stand in it twice; the entry of its latest push is the one to keep."""
    alive = list({entry[1]: entry for entry in heap if entry[2].waiting}.values())
    heapify(alive)
    return alive
