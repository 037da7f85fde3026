"""KV memory by pages, and the prefix cache: apart from it (`Apart`) or in what it has free (`Within`).

Law: pages are taken and given back by these methods alone; `available` never falls below 0. Hashes are chained, so a
block is only of use with all blocks before it: the tail of a prompt is always evicted before its head.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from penstock.engine.sequence import Run
from penstock.facts import BLOCK_TOKENS, Profile


class Memory(Protocol):
    """What the engine asks of its memory. Counts are pages."""

    pages: int
    available: int
    """Pages that running sequences may take, evicting cached blocks if need be."""

    def admit(self, run: Run, reserve: int) -> bool:
        """Take pages for the run's whole prompt, leaving `reserve` available; set what is cached. False when there is no room."""

    def computed(self, run: Run, before: int) -> None:
        """The run's prefill went on from its first `before` tokens: its new whole blocks may be reused."""

    def grow(self, pages: int) -> None:
        """Take pages for decoding; the caller looked at `available`."""

    def release(self, run: Run, slots: int) -> None:
        """Give back what a run with this many KV slots holds."""


def memory(profile: Profile) -> Memory:
    """The memory a profile describes. Raises ValueError for sizes that cannot work."""
    if profile.page_tokens < 1 or BLOCK_TOKENS % profile.page_tokens:
        raise ValueError(f"page_tokens must divide {BLOCK_TOKENS}")
    if profile.kv_tokens < profile.page_tokens or profile.chunk_tokens < 1 or profile.max_sequences < 1:
        raise ValueError("kv_tokens, chunk_tokens and max_sequences must be positive")
    return Apart(profile) if profile.cache_tokens > 0 else Within(profile)


class Apart:
    """Every sequence has pages of its own for its whole context; the cache is an LRU store beside them (host memory, say)."""

    __slots__ = ("_capacity", "_page", "_store", "available", "pages")

    def __init__(self, profile: Profile) -> None:
        self._page = profile.page_tokens
        self.pages = self.available = profile.kv_tokens // profile.page_tokens
        self._capacity = profile.cache_tokens // BLOCK_TOKENS
        self._store: OrderedDict[int, None] = OrderedDict()

    def admit(self, run: Run, reserve: int) -> bool:
        pages = -(-run.total // self._page)
        if self.available - pages < reserve:
            return False
        self.available -= pages
        blocks, store = run.sequence.blocks, self._store
        hit, limit = 0, run.usable_blocks()
        while hit < limit and blocks[hit] in store:
            hit += 1
        self._touch(blocks[:hit])
        run.cached = hit * BLOCK_TOKENS
        run.left = run.total - run.cached
        return True

    def computed(self, run: Run, before: int) -> None:
        blocks, store = run.sequence.blocks, self._store
        done = run.total - run.left
        last = min(done, run.sequence.prompt_tokens) // BLOCK_TOKENS
        for block in blocks[before // BLOCK_TOKENS : last]:
            store[block] = None
            if len(store) > self._capacity:
                store.popitem(last=False)
        if run.left == 0:
            self._touch(blocks[:last])

    def _touch(self, blocks: tuple[int, ...]) -> None:
        store = self._store
        for block in reversed(blocks):
            if block in store:
                store.move_to_end(block)

    def grow(self, pages: int) -> None:
        self.available -= pages

    def release(self, run: Run, slots: int) -> None:
        self.available += -(-slots // self._page)


class Within:
    """Sequences share the pages of equal blocks; blocks that nobody uses any more stay until their pages are needed (vLLM, SGLang)."""

    __slots__ = ("_block_pages", "_free", "_idle", "_page", "_users", "available", "pages")

    def __init__(self, profile: Profile) -> None:
        self._page = profile.page_tokens
        self._block_pages = BLOCK_TOKENS // profile.page_tokens
        self.pages = self.available = self._free = profile.kv_tokens // profile.page_tokens
        self._users: dict[int, int] = {}
        """Every block in the pool -> runs that hold it."""
        self._idle: OrderedDict[int, None] = OrderedDict()
        """Blocks that no run holds, least recently used first."""

    def admit(self, run: Run, reserve: int) -> bool:
        blocks, users, idle = run.sequence.blocks, self._users, self._idle
        hit, limit, woken = 0, run.usable_blocks(), 0
        while hit < limit and blocks[hit] in users:
            woken += blocks[hit] in idle
            hit += 1
        own = -(-run.total // self._page) - hit * self._block_pages
        if self.available - own - woken * self._block_pages < reserve:
            return False
        for block in blocks[:hit]:
            users[block] += 1
            if block in idle:
                del idle[block]
                self.available -= self._block_pages
        self.grow(own)
        run.shared = list(blocks[:hit])
        run.cached = hit * BLOCK_TOKENS
        run.left = run.total - run.cached
        return True

    def computed(self, run: Run, before: int) -> None:
        users = self._users
        last = min(run.total - run.left, run.sequence.prompt_tokens) // BLOCK_TOKENS
        for block in run.sequence.blocks[before // BLOCK_TOKENS : last]:
            if block not in users:  # else another run computed the same at the same time, and this copy stays its own
                users[block] = 1
                run.shared.append(block)

    def grow(self, pages: int) -> None:
        self.available -= pages
        self._free -= pages
        while self._free < 0:
            block, _ = self._idle.popitem(last=False)
            del self._users[block]
            self._free += self._block_pages

    def release(self, run: Run, slots: int) -> None:
        users, idle = self._users, self._idle
        for block in reversed(run.shared):
            users[block] -= 1
            if users[block] == 0:
                idle[block] = None
                self.available += self._block_pages
        own = -(-slots // self._page) - len(run.shared) * self._block_pages
        self._free += own
        self.available += own
        run.shared = []
