"""Plain servers in virtual time behind a core that knows nothing about them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from heapq import heappop, heappush
from itertools import count
from math import inf

import msgspec
from benchmarks.plain import Kind, Plain

from penstock.config import Class, Config, Node
from penstock.core import Core
from penstock.events import Arrived, Event, Failed, Finished, FirstToken, Forward, Reject, Tick
from penstock.facts import Failure, Outcome, Request
from penstock.knobs import Knobs


class Fate(msgspec.Struct):
    """One call: when it came, and how it ended."""

    at: float
    ended: float = inf
    outcome: Outcome | None = None
    retry_after_s: float = 0.0
    retry: int = 0


class Ask(msgspec.Struct, frozen=True):
    """A call to come."""

    retry: int = 0
    tenant: str = ""


class World:
    def __init__(
        self,
        kinds: Iterable[Kind],
        total_ms: float | None = 3_000.0,
        seed: int = 1,
        stream: bool = False,
        classes: tuple[Class, ...] = (),
    ) -> None:
        self.rng = random.Random(seed)
        self.servers = [Plain(kind, random.Random(seed + index)) for index, kind in enumerate(kinds)]
        nodes = tuple(Node(name=f"n{index}", url="http://127.0.0.1:9", models=("m",)) for index in range(len(self.servers)))
        self.core = Core(Config(nodes=nodes, classes=(*classes, Class(name="all", total_ms=total_ms))), Knobs(), random.Random(seed))
        self.now = 0.0
        self.stream = stream
        self.fates: dict[int, Fate] = {}
        self.heap: list[tuple[float, int, object]] = []
        self.count = count(1)
        self.at: dict[int, int] = {}
        self.retries = 0
        self.hint = True
        self.sent: dict[int, float] = {}
        self.first: dict[int, float] = {}

    def ask(self, at: float, retry: int = 0, tenant: str = "") -> None:
        heappush(self.heap, (at, next(self.count), Ask(retry, tenant)))

    def poisson(self, rate: float, start: float, end: float, tenant: str = "") -> None:
        at = start
        while (at := at + self.rng.expovariate(rate)) < end:
            self.ask(at, tenant=tenant)

    def capacity(self, at: float, servers: Iterable[int], factor: float) -> None:
        heappush(self.heap, (at, next(self.count), (tuple(servers), factor)))

    def run(self, until: float) -> None:
        while True:
            next_event = self.heap[0][0] if self.heap else inf
            ends = [server.next_at() for server in self.servers]
            tick = max(self.now, self.core.deadline) + 0.001
            at = min(next_event, min(ends), tick)
            if at > until or at == inf:
                return
            self.now = max(self.now, at)
            if next_event <= at:
                self._planned(heappop(self.heap)[2])
            elif min(ends) <= at:
                index = ends.index(min(ends))
                ended = self.servers[index].advance(self.now)
                self.begin(self.servers[index])
                for id in ended:
                    self.fates[id].ended, self.fates[id].outcome = self.now, Outcome.COMPLETED
                    self.tell(Finished(id, output_tokens=20))
            else:
                self.tell(Tick())

    def _planned(self, what: object) -> None:
        if isinstance(what, FirstToken):
            self.first.setdefault(what.id, self.now)
            if self.fates[what.id].outcome is None:
                self.tell(what)
            return
        if isinstance(what, tuple):
            for index in what[0]:
                self.servers[index].set_factor(what[1], self.now)
            return
        assert isinstance(what, Ask)
        id = next(self.count)
        self.fates[id] = Fate(self.now, retry=what.retry)
        retry = what.retry if self.hint else -1
        self.tell(Arrived(Request(id, "m", tenant=what.tenant, prompt_tokens=30, stream=self.stream, retry=retry)))

    def tell(self, event: Event) -> None:
        waiting = [event]
        while waiting:
            for action in self.core.handle(waiting.pop(0), self.now):
                fate = self.fates[action.id]
                if isinstance(action, Forward):
                    self.sent[action.id] = self.now
                    index = int(action.node[1:])
                    if not self.servers[index].submit(action.id, self.now):
                        waiting.append(Failed(action.id, Failure.BUSY))
                    self.begin(self.servers[index])
                elif isinstance(action, Reject):
                    fate.ended, fate.outcome, fate.retry_after_s = self.now, action.outcome, action.retry_after_s
                    if fate.retry < self.retries:
                        self.ask(self.now + action.retry_after_s, fate.retry + 1)

    def begin(self, server: Plain) -> None:
        begun, server.begun = server.begun, []
        if self.stream:
            for id in begun:
                heappush(
                    self.heap,
                    (
                        self.now + 0.1 * server.kind.seconds / server.kind.speed(server.running, server.factor),
                        next(self.count),
                        FirstToken(id),
                    ),
                )

    def good(self, start: float, end: float, total_s: float = 3.0) -> float:
        """Answers a second, of calls made from `start` to `end`, that came in time."""
        fine = sum(
            fate.outcome is Outcome.COMPLETED and fate.ended - fate.at <= total_s for fate in self.fates.values() if start <= fate.at < end
        )
        return fine / (end - start)
