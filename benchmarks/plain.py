"""A plain server as gateways meet them: what it can do at once, how requests slow each other, and when it says it is busy.

Pure: times come in, ends come out. `plain_server` runs it behind an OpenAI API; tests run it in virtual time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from math import exp, inf
from random import Random

import msgspec

Speed = Callable[[int], float]
"""Requests in service -> how fast each of them is served; 1 is the speed of one that is alone."""


class Kind(msgspec.Struct, frozen=True):
    """How a server behaves. `factor` of a moment scales its capacity: slots and what is shared."""

    slots: int = 8
    """Served at once; what comes beyond waits in a line of its own."""
    seconds: float = 0.7
    """Mean service time of a request that is alone."""
    spread: float = 0.5
    """Sigma of its logarithm."""
    shared: float = inf
    """Requests at the speed of one alone that it can serve together: beyond it, speed is shared."""
    step: float = 0.0
    """What each further request adds to a step, as a share of a step alone: batching."""
    busy_above: int = 1_000_000
    """In flight; beyond it the answer is 429."""
    pace: float = 1.0
    """Its speed beside its siblings'."""

    def speed(self, running: int, factor: float) -> float:
        shared = self.shared * factor
        speed = min(1.0, shared / running) if running and shared < inf else 1.0
        return self.pace * speed / (1.0 + self.step / factor * max(0, running - 1))


KINDS: dict[str, Kind] = {
    "fifo": Kind(),
    "sharing": Kind(slots=1_000, shared=8.0),
    "batching": Kind(slots=1_000, seconds=0.6, spread=0.3, step=0.06),
    "busy": Kind(busy_above=10),
    "quick": Kind(slots=16, seconds=0.2),
}


class Plain:
    """One server. `submit` and `advance` are told the time; `next_at` is when the next answer is ready."""

    def __init__(self, kind: Kind, rng: Random) -> None:
        self.kind, self.rng = kind, rng
        self.factor = 1.0
        self.done: list[tuple[float, int]] = []
        """Those in service, by the amount of service at which they end."""
        self.line: deque[tuple[int, float]] = deque()
        self.served = 0.0
        """Service that each request in service has been given since the beginning."""
        self.now = 0.0
        self.begun: list[int] = []
        """Those whose service began since it was last asked."""

    @property
    def slots(self) -> int:
        return max(1, round(self.kind.slots * self.factor)) if self.kind.slots < 1_000 else 1_000

    @property
    def running(self) -> int:
        return len(self.done)

    def draw(self) -> float:
        kind = self.kind
        return kind.seconds * exp(self.rng.gauss(-0.5 * kind.spread**2, kind.spread))

    def next_at(self) -> float:
        if not self.done:
            return inf
        return self.now + max(0.0, self.done[0][0] - self.served) / self.kind.speed(self.running, self.factor)

    def submit(self, id: int, now: float) -> bool:
        """False: it is busy."""
        self.advance_to(now)
        if self.running + len(self.line) >= max(1, round(self.kind.busy_above * self.factor)):
            return False
        self.line.append((id, self.draw()))
        self._fill()
        return True

    def cancel(self, id: int, now: float) -> None:
        """Its caller left: out of the line at once, out of service likewise."""
        self.advance_to(now)
        self.line = deque(entry for entry in self.line if entry[0] != id)
        self.done = sorted(entry for entry in self.done if entry[1] != id)
        self._fill()

    def advance(self, now: float) -> list[int]:
        """Answers that are ready by `now`."""
        ended = []
        while (at := self.next_at()) <= now:
            self.advance_to(at)
            self.served = max(self.served, self.done[0][0])
            ended.append(heappop(self.done)[1])
            self._fill()
        self.advance_to(now)
        return ended

    def set_factor(self, factor: float, now: float) -> None:
        self.advance_to(now)
        self.factor = factor
        self._fill()

    def advance_to(self, now: float) -> None:
        if self.done:
            self.served += max(0.0, now - self.now) * self.kind.speed(self.running, self.factor)
        self.now = max(now, self.now)

    def _fill(self) -> None:
        while self.line and self.running < self.slots:
            id, work = self.line.popleft()
            heappush(self.done, (self.served + work, id))
            self.begun.append(id)


def ability(kind: Kind, total_s: float = 3.0, factor: float = 1.0) -> float:
    """The most answers within `total_s` that one such server gives a second: kept at so many requests, at the number that suits it best."""
    best = 0.0
    for at_once in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 96):
        server = Plain(kind, Random(7))
        server.set_factor(factor, 0.0)
        ids = count(1)
        began = {id: 0.0 for id in (next(ids) for _ in range(at_once)) if server.submit(id, 0.0)}
        if len(began) < at_once:
            break
        good = 0
        while (now := server.next_at()) < 200.0:
            for id in server.advance(now):
                good += now - began.pop(id) <= total_s and now > 20.0
                server.submit(new := next(ids), now)
                began[new] = now
        best = max(best, good / 180.0)
    return best
