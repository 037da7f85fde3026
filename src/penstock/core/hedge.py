"""When a request is to be tried on a second node: its first token is overdue, and soon too late to be had elsewhere.

How much of that may be done is a share of all work, in tokens (prompt and predicted answer), saved up as requests are forwarded
(Dean and Barroso, "The tail at scale", 2013: hedged requests, at most 5% more load).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush
from math import inf

from penstock.core.flight import Flight

KEPT_TOKENS = 200_000.0
"""Unused share is kept up to this."""
SLACK = 256
"""So many requests that have ended may stay in the heap, and thrice as many as live."""


class Hedges:
    __slots__ = ("heap", "spare_tokens")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, int]] = []
        """When, which, and its attempt."""
        self.spare_tokens = 0.0

    def cap(self) -> None:
        """What was saved up is good for a few requests, not for an hour's share at once."""
        self.spare_tokens = min(self.spare_tokens, KEPT_TOKENS)

    def watch(self, flight: Flight, at: float, flights: Mapping[int, Flight]) -> None:
        """Look at it again at `at`; never where that is infinite."""
        if at == inf:
            return
        heappush(self.heap, (at, flight.request.id, flight.attempt))
        if len(self.heap) > 4 * len(flights) + SLACK:
            self.heap = [entry for entry in self.heap if entry[1] in flights]
            heapify(self.heap)

    def due(self, flights: Mapping[int, Flight], now: float) -> Iterator[Flight]:
        """Those whose time has come and that have still shown nothing."""
        heap = self.heap
        while heap:
            at, id, attempt = heap[0]
            flight = flights.get(id)
            pending = flight is not None and flight.attempt == attempt and flight.node is not None and flight.first < 0
            if pending and at > now:
                return
            heappop(heap)
            if pending:
                assert flight is not None
                yield flight

    def next(self) -> float:
        return self.heap[0][0] if self.heap else inf
