"""The highest score; among near-equals a random one, so that equal nodes share the work instead of herding."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.policy.views import NodeView


class Best:
    def __init__(self, tolerance: float = 0.02) -> None:
        self.tolerance = tolerance
        """Scores this share below the best count as equal to it."""

    def pick(self, scores: Sequence[float], nodes: Sequence[NodeView], rng: Random) -> int:
        best = max(scores)
        floor = best - abs(best) * self.tolerance
        near = [score >= floor for score in scores]
        equals = near.count(True)
        if equals == 1:
            return near.index(True)
        if equals == len(near):
            return int(rng.random() * equals)
        return [i for i, equal in enumerate(near) if equal][int(rng.random() * equals)]
