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
    def __init__(self, crowd_s: float = 0.0005, thrift: float = 1.0) -> None:
        self.crowd_s = crowd_s
        """What each running request adds: a step lasts about this much longer for it (c1 of the shipped profiles is 47 to 364 us)."""
        self.thrift = thrift
        """How much more than a second of waiting a second of own prefill weighs: the wait is the caller's alone, the work is taken
        from everybody. More saves work and keeps prefixes together, and lengthens waits."""

    def score(self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float) -> list[float]:
        tokens = flight.request.prompt_tokens
        crowd_s, weight = self.crowd_s, 1.0 + self.thrift
        scores = []
        for node, hit in zip(nodes, cached, strict=True):
            wait = node.free_at - now
            own = node.base_s + node.answer_s + (crowd_s + node.beside_s) * node.running + (tokens - hit) * node.token_s * weight
            scores.append(-(own + wait) if wait > 0.0 else -own)
        return scores

    def lead(
        self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float, tolerance: float, rng: Random
    ) -> tuple[int, float]:
        """`score` and the pick `best` in one pass. A cost is a score negated."""
        tokens = float(flight.request.prompt_tokens)
        crowd_s, weight = self.crowd_s, 1.0 + self.thrift
        least = limit = inf
        near: list[tuple[float, int]] = []
        for place, node in enumerate(nodes):
            cost = node.base_s + node.answer_s + (crowd_s + node.beside_s) * node.running + (tokens - cached[place]) * node.token_s * weight
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
