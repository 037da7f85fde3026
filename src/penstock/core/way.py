"""Making way: what lower classes have begun, unseen, is called back for a request that would be late otherwise. A part of the core, over
its state.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from penstock.core import charge
from penstock.core.flight import SPARE_S, Flight
from penstock.core.lane import Lane
from penstock.core.recall import plan, relief_s
from penstock.core.route import Choice
from penstock.events import Action, Recall
from penstock.facts import Outcome

if TYPE_CHECKING:
    from penstock.core.core import Core
    from penstock.core.fleet import Node


class Way:
    __slots__ = ("alarm", "core", "stirred")

    def __init__(self, core: Core) -> None:
        self.core = core
        self.alarm = inf
        """When the first of those who wait must start, at the latest."""
        self.stirred = False
        """Requests were called back, perhaps into queues that the present pass is through with."""

    def begun(self, flight: Flight, name: str, now: float) -> None:
        """It was called back too late: its answer goes on where it has begun."""
        node = self.core.roster.node(name)
        if node is None:
            return
        if flight.node is not None:
            flight.node.take_back(flight, now)
        self.core.leave(flight)
        flight.node = node
        node.give(flight, self.core.kv_tokens(flight), now)
        charge.dispatched(self.core.books, flight, len(self.core.nodes), now)

    def make(self, flight: Flight, refusal: Outcome, now: float, actions: list[Action]) -> Outcome | None:
        """What lower classes have begun, unseen, need not be in its way: start it in place of some of that, or count on it."""
        lane = flight.lane
        if refusal is not Outcome.REFUSED_DEADLINE:
            return refusal
        ahead, ahead_s = lane.queue.ahead(flight.priority, flight.key)
        if not ahead:
            return None if self.preempt(flight, now, actions) else refusal
        supply = self.core.admission.supply(lane, now)
        if not flight.waits or not supply.rate:
            return refusal
        relief = relief_s(flight, lane.nodes, self.core.flights, self.core.knobs, now)
        wait = self.core.admission.wait_s(lane, ahead, ahead_s, now) - relief / supply.rate
        slack = lane.queue.slack_after(flight.priority, flight.key, ahead_s + flight.own_s, supply)
        if now + max(wait, ahead_s / supply.rate) + self.least_s(flight) > flight.due or slack + relief < 0:
            return refusal
        self.core.wait(flight, now)
        return None

    def urgent(self, flight: Flight) -> bool:
        """Whether anything may be called back for it."""
        return flight.priority > self.core.lowest and flight.due < inf and self.core.knobs.preempt > 0

    def secure(self, flight: Flight, choice: Choice | None, tokens: int, now: float, actions: list[Action]) -> bool:
        """Start it now where it is in time even if first tokens come late, if its best node is none where that is so.

        Returns whether it was started.
        """
        core, lane = self.core, flight.lane
        if choice is None or self.safe(flight, choice, now) or lane.queue.ahead(flight.priority, flight.key)[0]:
            return False
        sure = [node for node in lane.nodes if now + max(0.0, node.free_at - now) + self.node_s(flight, node) <= flight.due]
        other = core.router.choose(flight, sure, tokens, core.knobs, now) if sure else None
        if other is not None and self.safe(flight, other, now) and other.node.has_room(core.depth_s, now, flight.own_s):
            core.forward(flight, other, now, actions)
            return True
        return self.preempt(flight, now, actions, slip=True)

    def safe(self, flight: Flight, choice: Choice, now: float) -> bool:
        """Whether its first token is in time there even if it comes late."""
        return now + choice.ready_s + choice.node.slip_s <= flight.due

    def node_s(self, flight: Flight, node: Node) -> float:
        """Its time to first token on the node with nothing ahead of it, and what that may be late."""
        return node.base_s + flight.own_s * (1.0 + self.core.knobs.margin) + node.slip_s

    def may_open(self, flight: Flight, now: float) -> bool:
        """Whether a node that has no slot or memory for it now could still begin it in time, and it is worth waiting for."""
        return self.urgent(flight) and any(
            node.state == "up" and node.running >= node.limit and max(now, node.free_at) + node.base_s + flight.own_s <= flight.due
            for node in flight.lane.nodes
        )

    def least_s(self, flight: Flight) -> float:
        """Its time to first token on a node that has nothing else to do, with some margin."""
        return flight.lane.nodes[0].base_s + flight.own_s * (1.0 + self.core.knobs.margin)

    def preempt(self, flight: Flight, now: float, actions: list[Action], slip: bool = False) -> bool:
        """Call back what is in its way on one node and start it there; whether that could be done. With `slip` so that it is in
        time even if first tokens come late.
        """
        tokens = self.core.kv_tokens(flight)
        found = plan(flight, flight.lane.nodes, self.core.flights, tokens, self.core.knobs, now, slip)
        if found is None:
            return False
        for victim in found.victims:
            self.recall(victim, now, actions)
        choice = self.core.router.choose(flight, [found.node], tokens, self.core.knobs, now)
        if choice is None:
            return False
        if flight.waiting:
            self.core.leave(flight)
            flight.lane.drained(now)
            self.core.climb.waited(flight, now)
        self.core.forward(flight, choice, now, actions)
        return True

    def recall(self, flight: Flight, now: float, actions: list[Action]) -> None:
        node = flight.node
        assert node is not None
        charge.settle(self.core.books, flight, -1, now)
        node.take_back(flight, now)
        if flight.account is not None or self.core.weighs:
            flight.lane.queue.recalled(flight, charge.cost(flight))
        flight.node, flight.recalls = None, flight.recalls + 1
        actions.append(Recall(flight.request.id, node.name))
        self.core.wait(flight, now)
        self.stirred = True

    def alarmed(self, now: float, actions: list[Action]) -> bool:
        """Look only at those who must start now; whether that changed anything."""
        before = len(actions)
        for lane in self.core.by_pool.values():
            if lane.queue.size and lane.alarm <= now:
                self.rescue(lane, now, actions)
        self.set_alarm()
        return len(actions) > before

    def set_alarm(self) -> None:
        """When the first of those who wait must start, at the latest."""
        self.alarm = min((lane.alarm for lane in self.core.by_pool.values() if lane.queue.size), default=inf)

    def rescue(self, lane: Lane, now: float, actions: list[Action]) -> None:
        """Who goes first and could not start in time otherwise is made way for."""
        lane.alarm = inf
        queue = lane.queue
        while (flight := queue.pop()) is not None:
            queue.put_back(flight)
            if flight.due == inf or flight.priority <= self.core.lowest:
                return
            slip_s = min((node.slip_s for node in lane.nodes), default=0.0)
            latest = flight.due - self.least_s(flight) - min(self.core.knobs.depth_s, SPARE_S) - slip_s
            if now < latest:
                lane.alarm = latest
                return
            choice = self.core.router.choose(flight, lane.nodes, self.core.kv_tokens(flight), self.core.knobs, now)
            if choice is not None and self.safe(flight, choice, now) and choice.node.has_room(self.core.depth_s, now, flight.own_s):
                return
            if not (self.preempt(flight, now, actions, slip=True) or self.preempt(flight, now, actions)):
                return
