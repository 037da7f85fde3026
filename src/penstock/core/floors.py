"""Shares of the dispatched work: what a class with a floor is owed, and what a priority that starves is.

Work is weighted tokens, halved every `HALF_LIFE_S`. A class that begins to wait starts with its share as if it had had it, so
that nothing is saved up while it has nothing waiting; and what it was given beyond its share is not held against it.
"""

from __future__ import annotations

from collections.abc import Mapping

HALF_LIFE_S = 60.0


Name = str | int
"""A class by its name, or a priority."""


class Floors:
    """`shares` are those of classes with one; a priority that starves is given `least` of the work."""

    __slots__ = ("aged_at", "done", "least", "shares", "total")

    def __init__(self, shares: Mapping[str, float], least: float = 0.02) -> None:
        self.shares, self.least = shares, least
        self.total = 0.0
        self.done: dict[Name, float] = {}
        self.aged_at = 0.0

    def dispatched(self, task: str, priority: int, tokens: float, now: float) -> None:
        if now - self.aged_at > 0.02 * HALF_LIFE_S:
            keep = 0.5 ** ((now - self.aged_at) / HALF_LIFE_S)
            self.total *= keep
            self.done = {known: done * keep for known, done in self.done.items()}
            self.aged_at = now
        self.total += tokens
        for name in (task, priority):
            if name in self.done:
                self.done[name] = min(self.done[name], self._share(name) * self.total) + tokens

    def returned(self, task: str, priority: int, tokens: float) -> None:
        """What was dispatched was called back."""
        self.total = max(0.0, self.total - tokens)
        for name in (task, priority):
            if name in self.done:
                self.done[name] = max(0.0, self.done[name] - tokens)

    def owes(self, task: str, priority: int) -> bool:
        """Whether one of the two has had less than its share."""
        return any(name in self.done and self.owed(name) > 0 for name in (task, priority))

    def begins(self, name: Name) -> None:
        """Its first request begins to wait."""
        self.done[name] = max(self.done.get(name, 0.0), self._share(name) * self.total)

    def owed(self, name: Name) -> float:
        """Weighted tokens by which it has had less than its share."""
        return self._share(name) * self.total - self.done[name]

    def _share(self, name: Name) -> float:
        return self.least if isinstance(name, int) else self.shares[name]
