"""A ledger of a node's KV memory: prompt and predicted output are reserved before dispatch, topped up as answers grow, and
settled at the end.

What is reserved for each counts while the sum of it fits; beyond it the node's answers are judged together (`pool`). A
request that has waited long for memory can lay claim to what becomes free: it is kept from others until it suffices.

Where the prefix cache lives in the same memory, blocks of prompts count once however many running requests share them. A
block that only the cache holds is no gift: the engine could have given its pages to others, and has to keep them now.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

from penstock.core.pool import TIGHT, Pool
from penstock.facts import BLOCK_TOKENS

if TYPE_CHECKING:
    from penstock.core.flight import Flight

PAGE_TOKENS = 16


class Memory:
    """Tokens, rounded up to pages as an engine allocates them. `capacity` is infinite while the size is unknown."""

    __slots__ = ("asked", "blocks", "capacity", "claim", "claimant", "held", "pool", "reserved", "unclaimed", "whole")

    def __init__(self, capacity: float = inf) -> None:
        self.capacity = self.unclaimed = capacity
        self.reserved = 0
        self.asked = 0
        """Tokens that were asked to be reserved, before rounding to pages."""
        self.held: dict[int, tuple[int, int]] = {}
        """Id -> tokens in whole pages, tokens asked."""
        self.blocks: dict[int, int] = {}
        """Prompts' blocks that running requests hold -> how many do."""
        self.whole = 0
        """Running requests whose blocks are not among them: each has its prompt counted whole."""
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
        return self.pool.ready and self.pool.fits(flight, tokens - flight.quota, limit - self.shared)

    @property
    def shared(self) -> int:
        return BLOCK_TOKENS * len(self.blocks)

    def held_of(self, blocks: Sequence[int], most: int) -> int:
        """How many of the first `most` blocks running requests hold: whoever holds one holds all before it."""
        held, least = self.blocks, 0
        while least < most:
            middle = (least + most + 1) // 2
            if blocks[middle - 1] in held:
                least = middle
            else:
                most = middle - 1
        return least

    def take(self, blocks: Sequence[int]) -> None:
        """A request with these blocks was dispatched."""
        held, before = self.blocks, len(self.blocks)
        for block in blocks:
            held[block] = held.get(block, 0) + 1
        new = BLOCK_TOKENS * (len(held) - before)
        self.reserved += new
        self.asked += new

    def give_up(self, blocks: Sequence[int]) -> None:
        held, before = self.blocks, len(self.blocks)
        for block in blocks:
            users = held[block] - 1
            if users:
                held[block] = users
            else:
                del held[block]
        freed = BLOCK_TOKENS * (before - len(held))
        self.reserved -= freed
        self.asked -= freed

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

    def used(self, clock: float) -> float:
        """Tokens that prompts and answers hold now, on the node's clock."""
        return self.shared + self.pool.used(clock)

    @property
    def tight(self) -> bool:
        return self.reserved > TIGHT * self.capacity

    def promised(self) -> int:
        """Tokens that are spoken for: single reservations while they fit, the answers' expected use together beyond, and claims."""
        own = min(self.reserved, int(self.pool.peak(self.capacity)) + self.shared) if self.pool.ready else self.reserved
        return own if self.claimant is None else int(max(own, min(self.capacity, own + self.claim)))
