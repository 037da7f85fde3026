"""The dispatch pass: expire, make way, assign. A part of the core, over its state.

It is synchronous and idempotent, and looks at a bounded number of queue heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

from penstock.core.flight import Flight
from penstock.core.lane import Lane
from penstock.core.route import Choice
from penstock.events import Action
from penstock.facts import Outcome

if TYPE_CHECKING:
    from penstock.core.core import Core
    from penstock.core.fleet import Node

MANY = 64
"""Nodes of one lane that are looked at one by one; beyond, the clock wakes a pass instead."""
LOYAL, LOYAL_S = 32, 8.0
"""Requests that may let others pass at once because another node has their prefix, and for how long each does."""
HOLD_BACK, PATIENT_S = 0.25, 8.0
"""A request that waits for memory is kept some once a quarter of the time to its deadline is over, or of this."""
BURST = 2
"""As many heads that wait for a node, and all begin alike, are taken for a burst of one prefix."""


class Dispatch:
    __slots__ = ("core", "wake")

    def __init__(self, core: Core) -> None:
        self.core = core
        self.wake = inf
        """When time alone makes another pass worth while."""

    def run(self, now: float, actions: list[Action], hint: Node | None) -> None:
        """A pass over all lanes; `hint` is a node that has just become freer."""
        core, wake = self.core, inf
        for lane in core.by_pool.values():
            if not lane.queue.size:
                continue
            self.expire(lane, now, actions)
            if core.knobs.preempt:
                core.way.rescue(lane, now, actions)
            self.assign(lane, now, actions, hint)
            if lane.queue.size:
                wake = min(wake, lane.queue.next_expiry(), self.opening(lane, now))
            else:
                lane.drained_at = 0.0
                lane.drain.waits(False, now)
        self.wake = wake
        core.way.set_alarm()
        if core.climb.turned or core.way.stirred:
            turned, core.climb.turned, core.way.stirred = core.climb.turned, [], False
            for flight, outcome in turned:
                core.climb.walk(flight, outcome, now, actions)
            self.run(now, actions, hint)

    def expire(self, lane: Lane, now: float, actions: list[Action]) -> None:
        """Turn away those whose time is over."""
        core = self.core
        while (flight := lane.queue.pop_expired(now)) is not None:
            core.waiting -= 1
            if flight.claim is not None:
                flight.claim.memory.let_go()
                flight.claim = None
            core.admission.withdrawn(flight, now)
            lane.pressure.withdrawn(now)
            lane.drain.departed(flight, lane.blocked, now)
            lane.turnouts.goes((flight.priority, flight.request.tenant), now)
            lane.turnouts.drop((flight.priority, flight.request.tenant))
            up = any(node.state == "up" for node in lane.nodes)
            core.climb.turn(flight, Outcome.EXPIRED if up else Outcome.UNAVAILABLE, now, actions)

    def opening(self, lane: Lane, now: float) -> float:
        """When the next of the lane's nodes has room again; nodes late already are waited for by events, not by the clock."""
        depth_s = self.core.depth_s
        if len(lane.nodes) > MANY:
            return now + depth_s
        times = [time for node in lane.nodes for time in (*node.opens_at(depth_s), node.breaker.reopens)]
        return min((time for time in times if time > now), default=inf)

    def assign(self, lane: Lane, now: float, actions: list[Action], hint: Node | None) -> None:
        """Give waiting heads to nodes with room. A head that does best to wait for a node lays claim to it for this pass."""
        core, queue, knobs = self.core, lane.queue, self.core.knobs
        if len(lane.nodes) <= MANY and not any(node.may_take(core.depth_s, now) for node in lane.nodes):
            return
        if queue.looks_stale(now):
            queue.look(core.admission.pace(lane, now))
        skipped: list[Flight] = []
        loyal: list[Flight] = []
        least = inf
        claims: list[tuple[Node, float]] = []
        begins: list[tuple[int, ...]] = []
        was_blocked, lane.blocked = lane.blocked, False
        while len(skipped) - len(loyal) < knobs.scan and (flight := queue.pop()) is not None:
            tokens, leaves = core.kv_tokens(flight), core.leaves(flight, now)
            tried = tokens + leaves < least or flight.claim is not None
            choice = core.choose(flight, tokens, leaves, now, hint) if tried else None
            if choice is None and core.router.kept(flight, lane.nodes):
                queue.pass_over(flight)
                skipped.append(flight)
                # While nothing is dispatched nothing else tells that the others have left.
                core.books.survey(len(lane.nodes), now)
            elif choice is None:
                lane.blocked = True
                skipped.append(flight)
                if not flight.tried and tried:
                    # Smaller ones may pass one that waits for memory, until it has waited long.
                    if not self.hold_back(flight, tokens, skipped, now):
                        break
                    least = min(least, tokens + leaves)
            elif self.late(flight, choice, now) and (sooner := self.sooner(flight, tokens, leaves, now)) is not None:
                self.start(flight, sooner, was_blocked, now, actions)
            elif self.late(flight, choice, now):
                if burst(begins) or core.way.may_open(flight, now):
                    skipped.append(flight)
                else:
                    self.give_up(flight, now, actions)
            elif not choice.node.in_time(flight, now):
                skipped.append(flight)
            elif choice.missed and len(loyal) < LOYAL and self.is_loyal(flight, choice, now):
                skipped.append(flight)
                loyal.append(flight)
            elif self.has_room(flight, choice, now):
                self.start(flight, choice, was_blocked, now, actions)
            else:
                if core.router.kept(flight, lane.nodes):
                    # Its turn may be before all others', and nobody behind it waits for the nodes it may take.
                    queue.pass_over(flight)
                skipped.append(flight)
                claims.append((choice.node, choice.node.free_at))
                begins.append(flight.request.blocks[:1])
                own_s = choice.uncached * choice.node.token_s
                choice.node.free_at = max(now, choice.node.free_at) + own_s * (max(1.0, queue.size / knobs.scan) if burst(begins) else 1.0)
        for node, free_at in reversed(claims):
            node.free_at = free_at
        for flight in skipped:
            queue.put_back(flight)
        if loyal:
            self.fill(loyal, was_blocked, now, actions, hint)

    def is_loyal(self, flight: Flight, choice: Choice, now: float) -> bool:
        """Whether it lets others pass for a while, because the node that has its prefix is full. Computed there it takes less of that
        node's time, and less of its memory, than here, so all are served sooner.
        """
        own_s = choice.uncached * choice.node.token_s
        if flight.recalls or flight.due - now - choice.ready_s <= own_s:
            return False
        if flight.loyal_at < 0:
            flight.loyal_at = now
        return now - flight.loyal_at < min(HOLD_BACK * (flight.due - flight.arrived), LOYAL_S)

    def fill(self, loyal: Sequence[Flight], was_blocked: bool, now: float, actions: list[Action], hint: Node | None) -> None:
        """No room is left unused for loyalty: what nobody else took goes to those who waited for another node."""
        core = self.core
        for flight in loyal:
            if not any(node.may_take(core.depth_s, now) for node in flight.lane.nodes):
                return
            choice = core.choose(flight, core.kv_tokens(flight), core.leaves(flight, now), now, hint)
            if choice is not None and not choice.node.memory.tight and self.has_room(flight, choice, now):
                self.start(flight, choice, was_blocked, now, actions)

    def late(self, flight: Flight, choice: Choice, now: float) -> bool:
        """Whether it would be late at the node that serves it best."""
        return now + (flight.own_s if flight.by_end else choice.ready_s) > flight.due

    def sooner(self, flight: Flight, tokens: int, leaves: int, now: float) -> Choice | None:
        """A node that could begin it at once, and in time, where the one that serves it best would be late: an idle one, most often, that
        does not have its prefix."""
        if flight.by_end:
            return None
        core = self.core
        choice = core.router.soonest(flight, flight.lane.nodes, tokens + leaves, core.knobs, now)
        if (
            choice is None
            or self.late(flight, choice, now)
            or not self.has_room(flight, choice, now)
            or not choice.node.in_time(flight, now)
        ):
            return None
        choice.kv_tokens = tokens
        return choice

    def has_room(self, flight: Flight, choice: Choice, now: float) -> bool:
        """Whether its node may begin it now."""
        if flight.recalls and choice.node.free_at > now:
            # Who was called back goes again when nothing is ahead of it, not to be in somebody's way at once.
            return False
        if flight.by_end:
            return True
        own_s = choice.uncached * choice.node.token_s
        return choice.node.has_room(self.core.depth_s, now, own_s) and choice.node.spares(flight, own_s, now)

    def start(self, flight: Flight, choice: Choice, was_blocked: bool, now: float, actions: list[Action]) -> None:
        core, lane = self.core, flight.lane
        lane.turnouts.goes((flight.priority, flight.request.tenant), now)
        core.leave(flight)
        lane.drained(now)
        lane.drain.departed(flight, was_blocked, now)
        core.climb.waited(flight, now)
        core.forward(flight, choice, now, actions)

    def give_up(self, flight: Flight, now: float, actions: list[Action]) -> None:
        """It would be late wherever it began."""
        core = self.core
        core.leave(flight)
        core.admission.withdrawn(flight, now)
        flight.lane.pressure.withdrawn(now)
        core.climb.turn(flight, Outcome.EXPIRED, now, actions)

    def hold_back(self, flight: Flight, tokens: int, ahead: Sequence[Flight], now: float) -> bool:
        """Where slots are free and memory is not, let the node with most of it keep what becomes free for one that has waited
        long. Its place in the order decides: it takes over what is kept for others than those `ahead` of it. Returns whether
        it is memory that is waited for.
        """
        open_nodes = [node for node in flight.lane.nodes if node.running < node.limit and node.admits(now)]
        if not open_nodes:
            return False
        if flight.claim is None and now - flight.arrived > HOLD_BACK * min(flight.due - flight.arrived, PATIENT_S):
            unclaimed = [node for node in open_nodes if node.memory.claimant is None]
            if not unclaimed:
                unclaimed = [node for node in open_nodes if node.memory.claimant not in ahead and node.memory.claimant is not flight]
            if unclaimed:
                node = max(unclaimed, key=lambda node: node.memory.capacity - node.memory.promised())
                if node.memory.claimant is not None:
                    node.memory.claimant.claim = None
                flight.claim = node
                node.memory.hold_back(flight, tokens)
        return True


def burst(begins: Sequence[tuple[int, ...]]) -> bool:
    """Whether all that wait for a node have the same first block. Then each stands for its share of the whole queue: a pass looks at few
    heads, and by these alone waiting for the node that has their prefix would seem to pay for as long as there are others behind.
    """
    return len(begins) >= BURST and bool(begins[0]) and begins.count(begins[0]) == len(begins)
