"""A node's cost, negated, in the unit of the configuration.

Beside `latency` a weight of 0.5 says that a unit is worth half a second: a node that costs one more is taken where the first token
comes half a second sooner. Costs are not put in proportion to each other, for then one dear node would make all others look alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.policy.views import FlightView, NodeView


class Cost:
    def score(self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float) -> list[float]:
        return [-node.cost for node in nodes]
