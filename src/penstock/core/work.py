"""Waiting work by key: requests and predicted prefill seconds in slots of `SLOT_S`, and how long each promise can be put off.

So "how much is ahead of this one" and "whom would it push past the deadline" cost the same at ten waiting requests and at 5,000.
"""

from __future__ import annotations

from math import inf

from penstock.core.flight import Flight
from penstock.core.supply import Supply

SLOT_S = 0.25


class Work:
    __slots__ = ("count", "promised", "seconds", "slots")

    def __init__(self) -> None:
        self.slots: dict[int, list[float]] = {}
        """Slot -> [requests, seconds, requests with a deadline]."""
        self.count = self.promised = 0
        self.seconds = 0.0

    def add(self, flight: Flight) -> None:
        slot = self.slots.setdefault(int(flight.key // SLOT_S), [0, 0.0, 0])
        slot[0] += 1
        slot[1] += flight.own_s
        slot[2] += flight.due < inf
        self.promised += flight.due < inf
        self.count += 1
        self.seconds += flight.own_s

    def take(self, flight: Flight) -> None:
        index = int(flight.key // SLOT_S)
        slot = self.slots[index]
        slot[0] -= 1
        slot[1] -= flight.own_s
        slot[2] -= flight.due < inf
        self.promised -= flight.due < inf
        if slot[0] == 0:
            del self.slots[index]
        self.count -= 1
        self.seconds = self.seconds - flight.own_s if self.count else 0.0

    def until(self, key: float) -> tuple[int, float]:
        """Requests and seconds up to the key's slot; all of them where the key is infinite, which has no slot."""
        if key == inf:
            return self.count, self.seconds
        last = key // SLOT_S
        count, seconds = 0, 0.0
        for index, slot in self.slots.items():
            if index <= last:
                count += int(slot[0])
                seconds += slot[1]
        return count, seconds

    def before(self, flight: Flight) -> tuple[float, float]:
        """As `until` its key, up to and with itself: half of the others in its slot stand behind it."""
        count, seconds = self.until(flight.key)
        slot = self.slots[int(flight.key // SLOT_S)]
        return count - 0.5 * (slot[0] - 1), seconds - 0.5 * (slot[1] - flight.own_s)

    def slack(self, after: float, ahead_s: float, supply: Supply) -> float:
        """The least time, in seconds of work, by which requests with a deadline behind slot `after` start before their key.

        `ahead_s` is the work before them.
        """
        least, total = inf, ahead_s
        for index in sorted(index for index in self.slots if index > after):
            slot = self.slots[index]
            if slot[2]:
                least = min(least, supply.by(index * SLOT_S) - total)
            total += slot[1]
        return least
