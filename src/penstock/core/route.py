"""Which node: candidates, scores, pick.

With more than `ALL` nodes only prefix holders and a few sampled nodes are scored, so that a decision costs the same at
800 nodes as at 8 (sampling keeps the load even: Mitzenmacher 2001).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import inf
from random import Random
from typing import cast

from penstock import config
from penstock.core.fairness import Fairness
from penstock.core.fleet import Node
from penstock.core.flight import Flight
from penstock.core.prefix import PrefixIndex
from penstock.core.sessions import Sessions
from penstock.facts import BLOCK_TOKENS
from penstock.knobs import Knobs
from penstock.policy import PICK, SCORE, find
from penstock.policy.pick.best import Best
from penstock.policy.views import Leader, Pick, Placer, Score

ALL = 16
HOLDERS = 4
KEPT_SLOTS = 1 / 64
"""Where slots are what is short: a node with fewer keeps none."""


class Choice:
    """A node for a request, and why."""

    __slots__ = ("kv_tokens", "missed", "node", "ready_s", "score", "uncached")

    def __init__(self, node: Node, uncached: int, kv_tokens: int, score: float, ready_s: float) -> None:
        self.node = node
        self.uncached = uncached
        self.kv_tokens = kv_tokens
        """KV memory to reserve, what is shared with running requests among it."""
        self.score = score
        self.ready_s = ready_s
        """Predicted seconds from now to its first token there."""
        self.missed = 0
        """Tokens of its prompt that a node has cached beyond what this one has, and that is full."""


class Router:
    def __init__(
        self, policy: config.Policy, prefixes: PrefixIndex, rng: Random, books: Fairness | None = None, sessions: Sessions | None = None
    ) -> None:
        self.books, self.sessions, self.weights = books or Fairness(), sessions or Sessions(), policy.score
        self.scores: list[tuple[float, Score]] = [
            (weight, find(SCORE, name, f"policy.score.{name}")) for name, weight in policy.score.items()
        ]
        self.weighed: Knobs | None = None
        """The knobs that the weights in `scores` are by."""
        self.single: Score | None = self.scores[0][1] if len(self.scores) == 1 and self.scores[0][0] > 0 else None
        self.remembers = any(getattr(score, "remembers", False) for _, score in self.scores)
        picker = find(PICK, policy.pick, "policy.pick")
        self.placer: Placer | None = picker if hasattr(picker, "place") else None
        self.by = policy.hash_by
        self.picker: Pick = Best() if self.placer is not None else picker
        self.leader: Leader | None = None
        """Scores and picks in one, where the policies allow that."""
        self.tolerance = 0.0
        if self.placer is None and isinstance(self.picker, Best) and hasattr(self.single, "lead"):
            self.leader, self.tolerance = cast(Leader, self.single), self.picker.tolerance
        self.prefixes, self.rng = prefixes, rng
        self.top, self.kept_slots = 0, 0.0
        """The priority that the last slots of a node are kept for, once one with a deadline stands above others, and their share."""

    def candidates(self, nodes: Sequence[Node], holders: dict[int, int], sample: int, hint: Node | None, before: int = -1) -> list[Node]:
        drawn = {node.index: node for node in self.rng.sample(nodes, min(sample, len(nodes)))}
        if hint is not None and (here := at(nodes, hint.index)) is not None:
            drawn[hint.index] = here
        if holders or before >= 0:
            deepest = sorted(holders, key=holders.__getitem__, reverse=True)[:HOLDERS]
            for index in (*deepest, before) if before >= 0 else deepest:
                if (here := at(nodes, index)) is not None:
                    drawn[index] = here
        return list(drawn.values())

    def kept(self, flight: Flight, nodes: Sequence[Node]) -> int:
        """How many of the first nodes this one is kept off, for its tenant is above its share and others need them."""
        if flight.account is None or not flight.account.apart or flight.due < inf:
            # With deadlines admission sees to it that the others are served in time.
            return 0
        kept = self.books.flood.kept(len(nodes))
        # Where none of those that are left can take it, it would wait for nothing. One whose own queue is long will.
        return kept if any(node.works and not flight.tried & node.bit for node in nodes[kept:]) else 0

    def choose(
        self, flight: Flight, nodes: Sequence[Node], tokens: int, knobs: Knobs, now: float, hint: Node | None = None
    ) -> Choice | None:
        """The best node that has a slot and memory for `tokens`, whether or not its prefill backlog has room yet."""
        request = flight.request
        if flight.account is not None and (kept := self.kept(flight, nodes)):
            nodes = nodes[kept:]
        holders = self.prefixes.match(request.blocks) if request.blocks else None
        if self.remembers:
            flight.before = self.sessions.node_of(request)
        few = len(nodes) <= ALL or self.placer is not None
        among = nodes if few else self.candidates(nodes, holders or {}, knobs.sample, hint, flight.before)
        able: Sequence[Node]
        cached: Sequence[int]
        elsewhere = 0
        if holders or flight.tried or flight.priority < self.top:
            able, cached, elsewhere = self._able(flight, among, holders, tokens, now)
        else:
            for node in among:
                if node.running >= node.limit or node.guarded or (node.bounded and node.memory.reserved + tokens > node.memory.unclaimed):
                    able, cached, elsewhere = self._able(flight, among, holders, tokens, now)
                    break
            else:
                # The common case: all are able, and nothing is cached.
                able, cached = among, (0,) * len(among)
        if not able:
            return None
        if self.leader is not None:
            index, score = self.leader.lead(flight, able, cached, now, self.tolerance, self.rng)
        elif self.placer is not None:
            index, score = self.placer.place(flight, able, self.by, knobs.hash_bound)
        else:
            if knobs is not self.weighed:
                self.weigh(knobs)
            scores = self.score(flight, able, cached, now)
            index = self.picker.pick(scores, able, self.rng)
            score = scores[index]
        node = able[index]
        uncached = request.prompt_tokens - cached[index]
        wait = node.free_at - now
        ready_s = (wait if wait > 0 else 0.0) + node.base_s + uncached * node.token_s
        choice = Choice(node, uncached, tokens, score, ready_s)
        if elsewhere > cached[index] and self.placer is None:
            choice.missed = elsewhere - cached[index]
        return choice

    def soonest(self, flight: Flight, nodes: Sequence[Node], tokens: int, knobs: Knobs, now: float) -> Choice | None:
        """The node with memory for `tokens` that is to show its first token before all others, whatever that costs them."""
        request, best = flight.request, None
        holders = self.prefixes.match(request.blocks)
        among = nodes if len(nodes) <= ALL else self.candidates(nodes, holders, knobs.sample, None)
        able, cached, _ = self._able(flight, among, holders, tokens, now)
        for node, hit in zip(able, cached, strict=True):
            uncached = request.prompt_tokens - hit
            ready_s = max(0.0, node.free_at - now) + node.base_s + uncached * node.token_s
            if best is None or ready_s < best.ready_s:
                best = Choice(node, uncached, tokens, -ready_s, ready_s)
        return best

    def _able(
        self, flight: Flight, among: Sequence[Node], holders: dict[int, int] | None, tokens: int, now: float
    ) -> tuple[list[Node], list[int], int]:
        """Those that have a slot and memory, how many of the prompt's tokens each has cached, and the most that a full one has."""
        request = flight.request
        able, cached = [], []
        most, tried, hit, elsewhere = request.prompt_tokens - 1, flight.tried, 0, 0
        slots = 1.0 if flight.priority >= self.top else 1.0 - self.kept_slots
        for node in among:
            if (node.guarded and not node.admits(now)) or (tried and (tried & node.bit or not node.continues(flight.form))):
                continue
            if holders:
                hit = holders.get(node.index, 0) * BLOCK_TOKENS
                if hit > most:
                    hit = most
            memory = node.memory
            if node.running < node.limit * slots and (
                memory.reserved + tokens <= memory.unclaimed or memory.fits(node.kv_need(tokens, hit, request), flight)
            ):
                able.append(node)
                cached.append(hit)
            elif hit > elsewhere:
                elsewhere = hit
        return able, cached, elsewhere

    def weigh(self, knobs: Knobs) -> None:
        """Take over the knobs that turn weights, of the shipped scores: `weight_latency` and so on."""
        self.weighed = knobs
        turned = [weight * getattr(knobs, f"weight_{name}", 1.0) for name, weight in self.weights.items()]
        self.scores = [(weight, score) for weight, (_, score) in zip(turned, self.scores, strict=True)]

    def score(self, flight: Flight, nodes: Sequence[Node], cached: Sequence[int], now: float) -> list[float]:
        if self.single is not None:
            return self.single.score(flight, nodes, cached, now)
        total = [0.0] * len(nodes)
        for weight, policy in self.scores:
            total = [sum_ + weight * part for sum_, part in zip(total, policy.score(flight, nodes, cached, now), strict=True)]
        return total


def number(node: Node) -> int:
    return node.index


def at(nodes: Sequence[Node], index: int) -> Node | None:
    """The node with this number, where it is among a lane's, which stand in the order of their numbers."""
    if index < len(nodes) and nodes[index].index == index:
        return nodes[index]
    # Others went, or never belonged to the lane.
    place = bisect_left(nodes, index, key=number)
    return nodes[place] if place < len(nodes) and nodes[place].index == index else None
