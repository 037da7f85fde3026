"""The process that all calls come in by, as far as it matters: one after the other, and so many at once."""

from __future__ import annotations

from math import inf

import msgspec


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """It takes calls from its socket first come, first served."""

    cost_s: float = 0.0
    """CPU seconds that a call takes of it."""
    most: int | None = None
    """Calls it can have open; the next one is answered "server busy"."""


class Turn:
    """When each call is taken from the socket."""

    __slots__ = ("cost_s", "free_at")

    def __init__(self, entry: Entry) -> None:
        self.cost_s, self.free_at = entry.cost_s, -inf

    def take(self, at: float) -> float:
        """When a call that came at `at`, the last one so far, has been read."""
        if not self.cost_s:
            return at
        self.free_at = (self.free_at if self.free_at > at else at) + self.cost_s
        return self.free_at
