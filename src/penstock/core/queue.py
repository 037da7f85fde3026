"""The requests that wait for one model: a heap by priority and policy key, expiry, and the work waiting by key.

`work` sums the predicted prefill seconds and the requests of each priority in slots of `SLOT_S` of the key, so that "how
much is ahead of this one" and "whom would it push past the deadline" cost the same at ten waiting requests and at 5,000.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf

from penstock.core.flight import Flight

SLOT_S = 0.25


class Queue:
    __slots__ = ("expiry", "heap", "size", "work")

    def __init__(self) -> None:
        self.heap: list[tuple[int, float, int, Flight]] = []
        self.expiry: list[tuple[float, int, Flight]] = []
        self.work: dict[int, dict[int, list[float]]] = {}
        """Priority -> slot -> [requests, seconds]."""
        self.size = 0

    def __len__(self) -> int:
        return self.size

    def push(self, flight: Flight) -> None:
        flight.waiting = True
        self.size += 1
        heappush(self.heap, (-flight.priority, flight.key, flight.request.id, flight))
        heappush(self.expiry, (flight.expires, flight.request.id, flight))
        slot = self.work.setdefault(flight.priority, {}).setdefault(int(flight.key / SLOT_S), [0, 0.0])
        slot[0] += 1
        slot[1] += flight.own_s

    def remove(self, flight: Flight) -> None:
        """It waits no longer. Its heap entries are dropped when they surface, or when most entries are dead."""
        flight.waiting = False
        self.size -= 1
        slots = self.work[flight.priority]
        index = int(flight.key / SLOT_S)
        slot = slots[index]
        slot[0] -= 1
        slot[1] -= flight.own_s
        if slot[0] == 0:
            del slots[index]
        if len(self.heap) > 2 * self.size + 64 or len(self.expiry) > 2 * self.size + 64:
            self._compact()

    def _compact(self) -> None:
        # A flight that was retried may stand in a heap twice; the entry of its latest push is the one to keep.
        self.heap = list({entry[2]: entry for entry in self.heap if entry[3].waiting}.values())
        self.expiry = list({entry[1]: entry for entry in self.expiry if entry[2].waiting}.values())
        heapify(self.heap)
        heapify(self.expiry)

    def pop(self) -> Flight | None:
        """The first waiting flight, still counted as waiting; `remove` it or `put_back`."""
        while self.heap:
            flight = heappop(self.heap)[3]
            if flight.waiting:
                return flight
        return None

    def put_back(self, flight: Flight) -> None:
        heappush(self.heap, (-flight.priority, flight.key, flight.request.id, flight))

    def next_expiry(self) -> float:
        expiry = self.expiry
        while expiry and not expiry[0][2].waiting:
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
        """Requests, and their predicted prefill seconds, that go before one with this priority and key."""
        last = key // SLOT_S
        count, seconds = 0, 0.0
        for band, slots in self.work.items():
            if band < priority:
                continue
            for index, (requests, work) in slots.items():
                if band > priority or index <= last:
                    count += int(requests)
                    seconds += work
        return count, seconds

    def slack_after(self, priority: int, key: float, ahead_s: float, rate: float, start: float) -> float:
        """The least time, in seconds of work, by which requests behind this key and of its priority start before their key.

        `ahead_s` is the work up to the key, `rate` the seconds of work done per second, and `start` when it begins.
        """
        first = key // SLOT_S
        slots = self.work.get(priority, {})
        least, total = inf, ahead_s
        for index in sorted(index for index in slots if index > first):
            least = min(least, (index * SLOT_S - start) * rate - total)
            total += slots[index][1]
        return least

    def work_s(self) -> float:
        """Predicted prefill seconds of all that wait."""
        return self.ahead(0, inf)[1]

    def flights(self) -> list[Flight]:
        """All that wait, in no order."""
        return list({entry[2]: entry[3] for entry in self.heap if entry[3].waiting}.values())
