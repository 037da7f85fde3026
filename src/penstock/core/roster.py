"""Which nodes there are, which lanes they make, and what is heard of them. A part of the core, over its state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.core import charge
from penstock.core.fleet import Node, nodes_of
from penstock.core.flight import Flight
from penstock.core.lane import Lane
from penstock.core.lengths import capped
from penstock.core.members import Members, kept, served
from penstock.events import Action, NodeDraining, NodeLost, NodeSeen, Progress
from penstock.facts import BLOCK_TOKENS, Outcome
from penstock.policy.score.locality import nearness

if TYPE_CHECKING:
    from penstock.core.core import Core

PREFIX_BLOCKS = 65_536
"""Blocks believed cached on a node that does not say how much it holds: 32 M tokens; an index entry costs about 150 bytes."""


class Roster:
    __slots__ = ("core", "kept", "nodes", "numbered", "pools")

    def __init__(self, core: Core) -> None:
        self.core = core
        self.nodes: list[Node] = []
        self.numbered = 0
        """The number that the next new node is given."""
        self.pools: list[Members] = []
        self.kept: frozenset[str] = frozenset()
        """Models that some pool names."""

    def configure(self, now: float, actions: list[Action]) -> None:
        """Follow the core's configuration; nodes that are as before keep what was learned of them."""
        core = self.core
        old = {node.name: node for node in self.nodes}
        self.nodes = core.nodes = nodes_of(core.config, core.knobs, core.profiles, old, self.numbered)
        tpot_s = min(task.tpot_s for task in core.classify.classes)
        for node in self.nodes:
            node.tpot_s = tpot_s
            node.near = nearness(core.config.labels, node.config.labels)
            node.learn_pace()
            if node.index >= self.numbered:
                self.numbered = node.index + 1
                core.prefixes.add_node(node.index, self.prefix_limit(node))
        self.pools = [Members(pool) for pool in core.config.pools]
        self.kept = kept(self.pools)
        self.build_lanes(now, actions)

    def prefix_limit(self, node: Node) -> int:
        profile = self.core.profiles.get(node.config.profile or "")
        tokens = (profile.cache_tokens or profile.kv_tokens) if profile else node.config.kv_tokens or PREFIX_BLOCKS * BLOCK_TOKENS
        return max(1, tokens // BLOCK_TOKENS)

    def build_lanes(self, now: float, actions: list[Action]) -> None:
        """Lanes by what nodes serve. A lane that is gone hands its requests to the one that they would go to now."""
        core = self.core
        table = served(self.nodes, self.pools)
        gone, core.by_pool = core.by_pool, {}
        for key, nodes in table.lanes.items():
            before = gone.pop(key, None)
            lane = core.by_pool[key] = Lane(key[0], nodes, key[1]) if before is None else before
            lane.nodes, lane.rules = sorted(nodes, key=lambda node: node.index), []
            lane.order_by(core.books if core.yields or core.shares else None, core.shares)
        core.lanes = {model: core.by_pool[model, rest] for model, (_, rest) in table.ways.items()}
        for model, (pools, _) in table.ways.items():
            core.lanes[model].rules = [(pool, core.by_pool[model, pool.name]) for pool in pools]
        if gone:
            self.hand_on(list(gone.values()), now, actions)

    def hand_on(self, gone: list[Lane], now: float, actions: list[Action]) -> None:
        """To the heirs of lanes that are gone: those that wait, and those that run, which may have to wait again."""
        core = self.core
        for lane in gone:
            # Nobody may be sent to these nodes from here any more.
            lane.nodes = []
        for flight in [flight for flight in core.flights.values() if flight.lane in gone and not flight.waiting]:
            for one in (flight, flight.twin):
                if one is not None and (heir := core.lane_of(one)) is not None:
                    one.lane = heir
                elif one is not None:
                    # It ends where it runs, or goes on along its ladder.
                    one.waits = False
        for lane in gone:
            for flight in lane.queue.flights():
                core.leave(flight)
                heir = core.lane_of(flight)
                if heir is None:
                    core.climb.waited(flight, now)
                    core.climb.walk(flight, Outcome.UNAVAILABLE, now, actions)
                else:
                    flight.lane = heir
                    core.wait(flight, now)

    def node(self, name: str) -> Node | None:
        return next((node for node in self.nodes if node.name == name), None)

    def progress(self, event: Progress, now: float, actions: list[Action]) -> None:
        node = self.node(event.node)
        if node is not None:
            node.progress(event.tokens, event.stream_s, now)
            for flight in node.memory.pool.passed(node.clock(now)):
                self.top_up(flight, node, now)
            charge.produced(self.core.books, node, self.core.flights, now)

    def top_up(self, flight: Flight, node: Node, now: float) -> None:
        """Its answer is longer than was reserved for it: reserve what most answers that got so far will need."""
        self.core.lengths.learn(
            (flight.lane.model, flight.task.name, flight.request.tenant), flight.quota, ended=False, before=flight.counted
        )
        flight.counted = flight.quota
        flight.quota = int(capped(flight.length.longer(flight.quota, 1 - self.core.lengths.quantile), flight.request.max_tokens))
        node.memory.reserve(flight.request.id, flight.prompt_kv + flight.quota)
        node.memory.pool.grew(flight)

    def seen(self, event: NodeSeen, now: float, actions: list[Action]) -> Node | None:
        node = self.node(event.node)
        if node is None:
            return None
        node.hear(event.signals, now)
        if node.state == "lost":
            node.state = "up"
            node.breaker.reopens = min(node.breaker.reopens, now)
        node.watch()
        models = event.signals.models
        if models and not node.config.models and models != node.models:
            node.models = models
            self.build_lanes(now, actions)
        return node

    def draining(self, event: NodeDraining, now: float, actions: list[Action]) -> None:
        node = self.node(event.node)
        if node is not None:
            node.state = "draining"
            node.watch()

    def lost(self, event: NodeLost, now: float, actions: list[Action]) -> None:
        node = self.node(event.node)
        if node is not None:
            node.state = "lost"
            node.watch()
            self.core.prefixes.clear(node.index)
            self.core.sessions.forget(node.index)
