"""A ledger of a node's KV memory: prompt and predicted output are reserved before dispatch, topped up as answers grow, and
settled at the end.

What is reserved for each counts while the sum of it fits; beyond it the node's answers are judged together (`pool`). A
request that has waited long for memory can lay claim to what becomes free: it is kept from others until it suffices.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from penstock.core.pool import TIGHT, Pool

if TYPE_CHECKING:
    from penstock.core.flight import Flight

PAGE_TOKENS = 16


class Memory:
    """Tokens, rounded up to pages as an engine allocates them. `capacity` is infinite while the size is unknown."""

    __slots__ = ("asked", "capacity", "claim", "claimant", "held", "pool", "reserved", "unclaimed")

    def __init__(self, capacity: float = inf) -> None:
        self.capacity = self.unclaimed = capacity
        self.reserved = 0
        self.asked = 0
        """Tokens that were asked to be reserved, before rounding to pages."""
        self.held: dict[int, tuple[int, int]] = {}
        """Id -> tokens in whole pages, tokens asked."""
        self.claimant: Flight | None = None
        self.claim = 0
        self.pool = Pool()

    def resize(self, capacity: float) -> None:
        self.capacity = capacity
        self.unclaimed = capacity - self.claim

    def fits(self, tokens: int, flight: Flight | None = None) -> bool:
        """Whether `tokens` more fit. An empty node takes anything: the engine then says what it cannot hold."""
        if self.reserved + tokens <= self.unclaimed or not self.held:
            return True
        if flight is None:
            return False
        limit = self.capacity if flight is self.claimant else self.unclaimed
        if self.reserved + tokens <= limit:
            return True
        return self.pool.ready and self.pool.fits(flight, tokens - flight.quota, limit)

    def reserve(self, id: int, tokens: int) -> None:
        pages = -(-tokens // PAGE_TOKENS) * PAGE_TOKENS
        before, asked = self.held.get(id, (0, 0))
        self.reserved += pages - before
        self.asked += tokens - asked
        self.held[id] = (pages, tokens)

    def settle(self, id: int) -> None:
        pages, asked = self.held.pop(id, (0, 0))
        self.reserved -= pages
        self.asked -= asked

    def hold_back(self, flight: Flight, tokens: int) -> None:
        """Keep what becomes free from all but `flight`."""
        self.claimant, self.claim = flight, tokens
        self.unclaimed = self.capacity - tokens

    def let_go(self) -> None:
        self.claimant, self.claim, self.unclaimed = None, 0, self.capacity

    @property
    def tight(self) -> bool:
        return self.reserved > TIGHT * self.capacity

    def promised(self) -> int:
        """Tokens that are spoken for: single reservations while they fit, the answers' expected use together beyond, and claims."""
        own = min(self.reserved, int(self.pool.peak())) if self.pool.ready else self.reserved
        return own if self.claimant is None else int(max(own, min(self.capacity, own + self.claim)))
