"""Share of KV memory that is free: by our own reservations, or, where the size is unknown, by what the node reports."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.policy.views import FlightView, NodeView


class KvRoom:
    def score(self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float) -> list[float]:
        return [room(node) for node in nodes]


def room(node: NodeView) -> float:
    memory = node.kv()
    if memory.capacity < inf:
        return max(0.0, 1.0 - memory.reserved / memory.capacity)
    return 1.0 - (node.reported.kv_usage or 0.0)
