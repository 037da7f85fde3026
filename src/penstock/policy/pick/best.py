"""The highest score; among near-equals a random one, so that equal nodes share the work instead of herding."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from penstock.policy.views import NodeView


class Best(msgspec.Struct, frozen=True):
    tolerance: float = 0.02
    """Scores this share below the best count as equal to it."""

    def pick(self, scores: Sequence[float], nodes: Sequence[NodeView], rng: Random) -> int:
        best = max(scores)
        floor = best - abs(best) * self.tolerance
        near = [i for i, score in enumerate(scores) if score >= floor]
        return near[0] if len(near) == 1 else near[int(rng.random() * len(near))]
