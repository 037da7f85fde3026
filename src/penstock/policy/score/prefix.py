"""Share of the prompt that a node has in its prefix cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.policy.views import FlightView, NodeView


class Prefix:
    def score(self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float) -> list[float]:
        tokens = flight.request.prompt_tokens
        return [hit / tokens for hit in cached]
