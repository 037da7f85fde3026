"""Predicted time to first token, negated: queued prefill, then the request's own uncached tokens at the node's learned rate.

One additive cost in seconds, so that cache affinity and load never need a threshold between them (compare Mooncake's
Conductor, FAST'25, section 6.1). A running batch slows every step a little: that also spreads what costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from penstock.policy.views import FlightView, NodeView


class Latency:
    def __init__(self, crowd_s: float = 0.002, thrift: float = 1.0, patient: float = 2.0) -> None:
        self.crowd_s = crowd_s
        """What each running request adds: a step lasts about this much longer for it (c1 of the shipped profiles is 47 to 364 us)."""
        self.thrift = thrift
        """How much more than a second of waiting a second of own prefill weighs: the wait is the caller's alone, the work is taken
        from everybody. More saves work and keeps prefixes together, and lengthens waits."""
        self.patient = patient
        """The same for requests without a deadline, whose waits make nobody late: mean time to first token is as good at any value
        from 0.5 to 4, for what waits add is what saved work takes away, and the work saved is there for more requests."""

    def saved_s(self, flight: FlightView, nodes: Sequence[NodeView]) -> float:
        """What a cached token is worth beyond the caller's own time: the same at all nodes, whose learned rates differ by chance, too."""
        token_s = 0.0
        for node in nodes:
            token_s += node.token_s
        return (self.thrift if flight.due < inf else self.patient) * token_s / len(nodes)

    def score(self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float) -> list[float]:
        tokens, crowd_s = flight.request.prompt_tokens, self.crowd_s
        saved_s = self.saved_s(flight, nodes) if any(cached) else 0.0
        scores = []
        for node, hit in zip(nodes, cached, strict=True):
            own = node.base_s + node.answer_s + (crowd_s + node.beside_s) * node.running + (tokens - hit) * node.token_s - hit * saved_s
            wait = node.free_at - now
            scores.append(-(own + wait) if wait > 0.0 else -own)
        return scores

    def lead(
        self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float, tolerance: float, rng: Random
    ) -> tuple[int, float]:
        """`score` and the pick `best` in one pass. A cost is a score negated."""
        tokens, crowd_s = float(flight.request.prompt_tokens), self.crowd_s
        saved_s = self.saved_s(flight, nodes) if any(cached) else 0.0
        least = limit = inf
        near: list[tuple[float, int]] = []
        for place, node in enumerate(nodes):
            hit = cached[place]
            cost = node.base_s + node.answer_s + (crowd_s + node.beside_s) * node.running + (tokens - hit) * node.token_s - hit * saved_s
            wait = node.free_at - now
            if wait > 0.0:
                cost += wait
            if cost <= limit:
                near.append((cost, place))
                if cost < least:
                    least, limit = cost, cost + abs(cost) * tolerance
        if len(near) > 1:
            # Some were near only to what was the least before.
            near = [one for one in near if one[0] <= limit]
        cost, place = near[0] if len(near) == 1 else near[int(rng.random() * len(near))]
        return place, -cost
