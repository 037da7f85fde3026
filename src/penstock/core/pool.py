"""What a node's running answers will hold of its KV memory, now and some tokens from now, as a sum of many.

An answer's own high quantile is seldom needed by many at once: while some grow, others end and give all back. So where the
sum of single reservations is full, what counts is the expected use at each of `lengths.AHEAD` tokens from now and `sure`
deviations more, but with few answers no more than the share `free` of all. A node whose answers are all young is filled less than one whose
answers are of all ages.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf, sqrt
from typing import TYPE_CHECKING

from penstock.core.lengths import AHEAD

if TYPE_CHECKING:
    from penstock.core.flight import Flight

SURE = 3.0
"""Of 1,500 answers a few are then thrown out by an engine that holds 20 of them, and none by one that holds hundreds."""
FREE = 0.18
FEW = 25
"""On a node with few answers no more of its memory is kept free to be sure: what that costs is more than what it saves. With
more answers one outgrows it for many, and more may be kept, as deviations grow; it is seldom needed.
"""
TIGHT = 0.6
"""Below this share of its memory reserved a node is not looked at so closely."""


class Pool:
    """`clock` is the node's count of tokens that each of its streams was given, see `Node.clock`."""

    __slots__ = ("flights", "free", "mean", "passes", "ready", "sure", "variance")

    def __init__(self) -> None:
        self.flights: dict[int, Flight] = {}
        self.passes: list[tuple[float, int]] = []
        """When answers grow past what was reserved for them, on the node's clock."""
        self.mean = [0.0] * len(AHEAD)
        self.variance = [0.0] * len(AHEAD)
        self.ready = False
        self.sure = SURE
        self.free = FREE

    def began(self, flight: Flight, clock: float) -> None:
        """Its first token is out."""
        # Nothing was out before, and nothing is: the sums stay.
        flight.clock = clock
        self.grew(flight)

    def grew(self, flight: Flight) -> None:
        """Its answer has so much more reserved; note when it is past that."""
        if flight.quota != flight.request.max_tokens:
            heappush(self.passes, (flight.clock + flight.quota, flight.request.id))
            if len(self.passes) > 4 * len(self.flights) + 64:
                # Of those that ended, whose moment never came: the node's count stands still, or answers are short.
                self.passes = [(at, id) for at, id in self.passes if id in self.flights]
                heapify(self.passes)

    def add(self, flight: Flight, clock: float) -> None:
        self.flights[flight.request.id] = flight
        if self.ready:
            self._count(flight, clock, 1.0)

    def drop(self, flight: Flight, clock: float) -> None:
        if self.flights.pop(flight.request.id, None) is not None and self.ready:
            self._count(flight, clock, -1.0)

    def passed(self, clock: float) -> list[Flight]:
        """Answers that have grown past what was reserved for them."""
        passes, found = self.passes, []
        while passes and passes[0][0] <= clock:
            flight = self.flights.get(heappop(passes)[1])
            if flight is not None and flight.clock >= 0.0 and clock - flight.clock >= flight.quota:
                found.append(flight)
        return found

    def refresh(self, clock: float, tight: bool) -> None:
        """Sum up anew; where memory is not `tight`, nothing is summed."""
        self.ready = tight
        if tight:
            self.mean, self.variance = [0.0] * len(AHEAD), [0.0] * len(AHEAD)
            for flight in self.flights.values():
                self._count(flight, clock, 1.0)

    def _count(self, flight: Flight, clock: float, sign: float) -> None:
        done = max(0.0, clock - flight.clock) if flight.clock >= 0.0 else 0.0
        most = flight.request.max_tokens or inf
        base, mean, variance = flight.prompt_kv + done, self.mean, self.variance
        for at, (more, share) in enumerate(zip(AHEAD, flight.length.ahead(int(done)), strict=True)):
            if share <= 0.0 or done + more > most:
                break
            use = (base + more) * share
            mean[at] += sign * use
            variance[at] += sign * use * (base + more) * (1.0 - share)

    def fits(self, flight: Flight, prompt_kv: float, limit: float) -> bool:
        """Whether one more answer behind `prompt_kv` tokens keeps the expected use, and what makes it sure, inside `limit`."""
        if self.mean[0] + prompt_kv > limit:
            return False
        most = flight.request.max_tokens or inf
        most_free = self.most_free(limit)
        for more, share, mean, variance in zip(AHEAD, flight.length.ahead(0), self.mean, self.variance, strict=True):
            use = (prompt_kv + more) * share if more <= most else 0.0
            spare = self.sure * sqrt(max(0.0, variance + use * (prompt_kv + more) * (1.0 - share)))
            if mean + use + min(spare, most_free) > limit:
                return False
        return True

    def most_free(self, limit: float) -> float:
        """The most tokens to keep free beyond the expected use."""
        return self.free * limit * max(1.0, sqrt(len(self.flights) / FEW))

    def used(self, clock: float) -> float:
        """Tokens that the prompts and answers on the node hold now."""
        return sum(flight.prompt_kv + (max(0.0, clock - flight.clock) if flight.clock >= 0.0 else 0.0) for flight in self.flights.values())

    def peak(self, limit: float = inf) -> float:
        """The most that is expected to be held, and what makes it sure."""
        most_free = self.most_free(limit)
        return max(
            mean + min(self.sure * sqrt(max(0.0, variance)), most_free) for mean, variance in zip(self.mean, self.variance, strict=True)
        )
