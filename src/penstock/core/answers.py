"""How long whole answers take on nodes of which only that is seen: each node's recent mean, and by class how far answers lie from it."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.core.fleet import Node

MIDDLE, HIGH = 0.7, 0.9
FIRST = (1.1, 1.6)
"""A middle and a high quantile of answers' times over their mean, until some have been seen."""
STEP = 0.04
FLOOR = 0.01


class Answers:
    """Running quantiles of the ratio of an answer's time to its node's mean, by model and class (stochastic approximation)."""

    __slots__ = ("known",)

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], tuple[float, float]] = {}

    def learn(self, key: tuple[str, str], took_s: float, mean_s: float) -> None:
        if mean_s <= 0:
            return
        ratio = took_s / mean_s
        middle, high = self.known.get(key, FIRST)
        middle *= 1 + STEP * (MIDDLE if ratio > middle else MIDDLE - 1)
        high *= 1 + STEP * (HIGH if ratio > high else HIGH - 1)
        if middle < FLOOR:
            middle = FLOOR
        self.known[key] = (middle, high if high > middle else middle)

    def ratios(self, key: tuple[str, str]) -> tuple[float, float]:
        """A middle and a high quantile of an answer's time, as shares of its node's mean."""
        return self.known.get(key, FIRST)


def mean_s(nodes: Iterable[Node]) -> float:
    """Mean time of an answer over nodes by the work they do; 0 while unknown."""
    ends = running = 0.0
    for node in nodes:
        if (learned := node.concurrency) is not None and learned.rules and node.state == "up":
            rate = learned.per_s()
            ends += rate
            running += rate * learned.time_s(node.running + 1)
    return running / ends if ends else 0.0


def per_s(nodes: Iterable[Node]) -> float:
    """Answers a second of nodes that have enough to do; 0 while unknown."""
    found = 0.0
    for node in nodes:
        if (learned := node.concurrency) is not None and learned.rules and node.state == "up":
            found += learned.per_s()
    return found


def cold(nodes: Iterable[Node]) -> bool:
    """Whether some are still to give their first answer: how fast they take requests says nothing yet of how fast they will."""
    return any(
        (learned := node.concurrency) is not None and learned.rules and learned.starting and not learned.recent_s and node.state == "up"
        for node in nodes
    )
