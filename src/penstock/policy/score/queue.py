"""Fewest requests: 1 for an idle node, falling to 0 with the requests it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.policy.views import FlightView, NodeView


class Queue:
    def score(self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float) -> list[float]:
        return [1.0 / (1 + node.running) for node in nodes]
