"""A lane: the nodes of one pool that serve one model, and the requests that wait for them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from math import inf

from penstock.core.bands import Bands
from penstock.core.claims import Claims
from penstock.core.demand import Demands
from penstock.core.drain import Drain
from penstock.core.fairness import Fairness
from penstock.core.fleet import Node
from penstock.core.members import NONE, Members
from penstock.core.pressure import Pressure
from penstock.core.queue import Queue
from penstock.core.returns import Returns
from penstock.core.turnout import Turnouts
from penstock.facts import LaneSnapshot, Request
from penstock.policy.task import TaskClass

SHOWN = 256
"""Lanes of which a snapshot tells; of more, those in which somebody waits first: models are what engines say they are."""


class Lane:
    __slots__ = (
        "alarm", "bands", "blocked", "claims", "demands", "drain", "drain_s", "drained_at", "model", "nodes", "pool", "pressure",
        "queue", "returns", "rules", "turnouts",
    )  # fmt: skip

    def __init__(self, model: str, nodes: list[Node], pool: str = NONE) -> None:
        self.model, self.nodes, self.pool = model, nodes, pool
        self.rules: list[tuple[Members, Lane]] = []
        """Where it is the one that its model's requests go to: the pools that are asked first, and their lanes."""
        self.queue = Queue()
        self.bands: dict[int, Bands] = {}
        """By priority, while there is one tenant."""
        self.claims: dict[int, Claims] = {}
        """By priority, once there are several tenants."""
        self.pressure = Pressure()
        self.drain = Drain()
        self.turnouts = Turnouts()
        self.demands = Demands()
        self.returns = Returns()
        self.blocked = False
        """In the last pass no node had a slot or KV memory: the queue drains as answers end, not as prefills do."""
        self.drain_s = 0.0
        """Running mean of the seconds between dispatches from the queue; 0 while unknown."""
        self.drained_at = 0.0
        self.alarm = inf
        """When its first waiting request must start, at the latest."""

    def led(self, request: Request, task: TaskClass) -> Lane:
        """The lane of the first pool whose rule the request meets; this one where it meets none."""
        for pool, lane in self.rules:
            if pool.takes(request, task):
                return lane
        return self

    def every(self) -> list[Lane]:
        """Those that requests for its model may be led to, itself among them."""
        return [self, *(lane for _, lane in self.rules)]

    def order_by(self, books: Fairness | None, shares: Mapping[str, float]) -> None:
        """See `Queue`; what waits stays."""
        if self.queue.books is not books or self.queue.floors.shares != shares:
            old, self.queue = self.queue, Queue(books, shares)
            for flight in old.flights():
                self.queue.push(flight)

    def learned(self) -> bool:
        """Whether some of its nodes say neither what they are nor how much they take at once."""
        return any(node.concurrency is not None for node in self.nodes)

    def drained(self, now: float) -> None:
        """A waiting request was dispatched."""
        if self.drained_at:
            gap = now - self.drained_at
            self.drain_s = gap if not self.drain_s else self.drain_s * 0.95 + gap * 0.05
        self.drained_at = now

    def snapshot(self, now: float) -> LaneSnapshot:
        waiting = self.queue.flights()
        classes: dict[str, int] = {}
        for flight in waiting:
            classes[flight.task.name] = classes.get(flight.task.name, 0) + 1
        oldest = max((now - flight.arrived for flight in waiting), default=0.0)
        rate = 1 / self.drain_s if self.drain_s > 0 else 0.0
        return LaneSnapshot(model=self.model, pool=self.pool, waiting=len(waiting), oldest_s=oldest, drained_per_s=rate, classes=classes)


def shown(lanes: Collection[Lane]) -> Iterable[Lane]:
    """As many as a snapshot may hold."""
    if len(lanes) <= SHOWN:
        return lanes
    return sorted(lanes, key=lambda lane: not lane.queue.size)[:SHOWN]
