"""Second tries: an overdue request on another node, until one of the two shows a first byte. A part of the core, over its state."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from penstock.core.fleet import Node
from penstock.core.flight import Flight
from penstock.core.hedge import Hedges
from penstock.events import Action, Cancel, Hedge

if TYPE_CHECKING:
    from penstock.core.core import Core


class Second:
    __slots__ = ("core", "hedges")

    def __init__(self, core: Core) -> None:
        self.core = core
        self.hedges = Hedges()

    def whole_s(self, flight: Flight, node: Node) -> float:
        """How long its answer takes after its first token; infinite while that cannot be told."""
        tokens = self.core.lengths.high((flight.lane.model, flight.task.name), flight.request.max_tokens)
        return tokens * node.steps.itl_s or inf

    def try_overdue(self, now: float, actions: list[Action]) -> None:
        """Try those that are overdue on a second node, where that is free, in time, and within what may be done of this."""
        for flight in self.hedges.due(self.core.flights, now):
            node, lane, tokens = flight.node, flight.lane, self.core.kv_tokens(flight)
            self.hedges.cap()
            if flight.twin is not None or lane.queue.size or tokens > self.hedges.spare_tokens:
                continue
            others = [other for other in lane.nodes if other is not node]
            choice = self.core.router.choose(flight, others, tokens, self.core.knobs, now)
            if choice is None or now + choice.ready_s > flight.due:
                continue
            if not choice.node.has_room(self.core.depth_s, now, choice.uncached * choice.node.token_s):
                continue
            self.hedges.spare_tokens -= choice.kv_tokens
            twin = flight.copy()
            twin.node, twin.uncached, twin.forwarded = choice.node, choice.uncached, now
            choice.node.give(twin, choice.kv_tokens, now)
            flight.twin = twin
            if flight.request.blocks:
                self.core.prefixes.insert(choice.node.index, flight.request.blocks)
            cached = float(flight.request.prompt_tokens - choice.uncached)
            why = (now - flight.arrived, choice.ready_s, cached, choice.score, float(flight.attempt))
            actions.append(Hedge(flight.request.id, choice.node.name, why))

    def decide(self, flight: Flight, twin: Flight, name: str, now: float, actions: list[Action]) -> Flight:
        """The node `name` has shown the first byte: the other one stops."""
        flight.twin = None
        won = twin.node is not None and twin.node.name == name
        winner, loser = (twin, flight) if won else (flight, twin)
        assert loser.node is not None
        loser.node.take_back(loser, now)
        actions.append(Cancel(loser.request.id, loser.node.name))
        self.core.flights[winner.request.id] = winner
        return winner
