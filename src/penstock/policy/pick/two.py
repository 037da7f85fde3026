"""The better of two drawn at random (Mitzenmacher, The Power of Two Choices, 2001)."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.policy.views import NodeView


class Two:
    def pick(self, scores: Sequence[float], nodes: Sequence[NodeView], rng: Random) -> int:
        if len(scores) == 1:
            return 0
        first, second = rng.sample(range(len(scores)), 2)
        return first if scores[first] >= scores[second] else second
