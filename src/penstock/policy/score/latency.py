"""Predicted time to first token, negated: queued prefill, then the request's own uncached tokens at the node's learned rate.

One additive cost in seconds, so that cache affinity and load never need a threshold between them (compare Mooncake's
Conductor, FAST'25, section 6.1). A running batch slows every step a little; `crowd` weighs it, so that idle fleets spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from penstock.policy.views import FlightView, NodeView


class Latency(msgspec.Struct, frozen=True):
    crowd: float = 2.0
    """How many empty-prompt times a full batch is worth."""
    thrift: float = 1.0
    """How much more than a second of waiting a second of own prefill weighs: the wait is the caller's alone, the work is taken
    from everybody. More saves work and keeps prefixes together, and lengthens waits."""

    def score(self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float) -> list[float]:
        tokens = flight.request.prompt_tokens
        crowd, weight = self.crowd, 1.0 + self.thrift
        scores = []
        for node, hit in zip(nodes, cached, strict=True):
            wait = node.free_at - now
            own = node.base_s * (1.0 + crowd * node.running / node.max_running) + (tokens - hit) * node.token_s * weight
            scores.append(-(own + wait) if wait > 0.0 else -own)
        return scores
