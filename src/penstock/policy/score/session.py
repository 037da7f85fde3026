"""1 for the node that served the request's session last, 0 for the others.

For what a node keeps of a session that prompts do not show: adapters, tool state, a cache that nothing is known of. What they do
show is counted by `latency` already. Beside it a weight of 0.5 is worth half a second: so much longer may the first token take there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.policy.views import FlightView, NodeView


class Session:
    remembers = True

    def score(self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float) -> list[float]:
        before = flight.before
        return [1.0 if node.index == before else 0.0 for node in nodes]
