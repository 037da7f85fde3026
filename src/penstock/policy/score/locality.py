"""Share of the gateway's own labels that a node has too: with `zone` and `region`, 1 in the same zone, 0.5 in the same region.

Beside `latency` a weight of 0.05 is worth 50 ms: how much sooner the first token must come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.policy.views import FlightView, NodeView


class Locality:
    def score(self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float) -> list[float]:
        return [node.near for node in nodes]


def nearness(own: Mapping[str, str], labels: Mapping[str, str]) -> float:
    """Share of the gateway's labels, `own`, that a node's `labels` have as they are."""
    return sum(labels.get(name) == value for name, value in own.items()) / len(own) if own else 0.0
