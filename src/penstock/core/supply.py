"""How much prefill a lane's nodes can do by when: each does its share from when it is free.

Work is not spread evenly: one prompt of half a million tokens keeps its node for half a minute while the others are free. So
what can be done by a time is a convex curve, of as many straight pieces as there are nodes; that of the mean backlog, a
straight line, is only what it comes to in the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from penstock.core.fleet import Node

MANY = 64
"""Of more nodes than this the mean tells enough, and costs less."""


class Supply:
    """Seconds of prefill by time. `share` of it is what may be used."""

    __slots__ = ("pieces", "rate")

    def __init__(self, nodes: Iterable[Node], now: float, share: float = 1.0) -> None:
        up = [node for node in nodes if node.state == "up"]
        free = sorted([(node.free_at if node.free_at > now else now, node.share * share) for node in up])
        self.rate = sum(rate for _, rate in free)
        self.pieces: list[tuple[float, float, float]] = []
        """From when, the rate from then on, and the seconds done before."""
        if len(free) > MANY and self.rate:
            self.pieces.append((sum(at * rate for at, rate in free) / self.rate, self.rate, 0.0))
            return
        last, rate, done = now, 0.0, 0.0
        for at, more in free:
            done += (at - last) * rate
            last, rate = at, rate + more
            if rate:
                self.pieces.append((last, rate, done))

    @staticmethod
    def flat(rate: float, start: float) -> Supply:
        """All of it at one rate, from `start` on."""
        made = Supply((), start)
        made.rate = rate
        if rate:
            made.pieces.append((start, rate, 0.0))
        return made

    def by(self, at: float) -> float:
        """Seconds of work that can be done by `at`."""
        for start, rate, done in reversed(self.pieces):
            if at >= start:
                return done + (at - start) * rate
        # Before anybody is free: what is lacking, as the first who is would have done it.
        return (at - self.pieces[0][0]) * self.pieces[0][1] if self.pieces else 0.0

    def when(self, seconds: float) -> float:
        """When so much is done; infinite if there is nobody to do it."""
        for start, rate, done in reversed(self.pieces):
            if seconds >= done:
                return start + (seconds - done) / rate
        return inf
