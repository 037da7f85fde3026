"""A ledger of a node's KV memory: prompt and predicted output are reserved before dispatch and settled at the end."""

from __future__ import annotations

from math import inf

PAGE_TOKENS = 16


class Memory:
    """Tokens, rounded up to pages as an engine allocates them. `capacity` is infinite while the size is unknown."""

    __slots__ = ("capacity", "held", "reserved")

    def __init__(self, capacity: float = inf) -> None:
        self.capacity = capacity
        self.reserved = 0
        self.held: dict[int, int] = {}

    def fits(self, tokens: int) -> bool:
        """Whether `tokens` more fit. An empty node takes anything: the engine then says what it cannot hold."""
        return self.reserved + tokens <= self.capacity or not self.held

    def reserve(self, id: int, tokens: int) -> None:
        pages = -(-tokens // PAGE_TOKENS) * PAGE_TOKENS
        self.reserved += pages - self.held.get(id, 0)
        self.held[id] = pages

    def settle(self, id: int) -> None:
        self.reserved -= self.held.pop(id, 0)
