"""Which node has which prompt prefix: a bounded index of chained block hashes, least recently used out first.

A block's hash covers all blocks before it, so a node holds a prefix as far as it holds an unbroken run from the first
block. Recency is the order of use, not a clock. Tenants are told apart by the salt in the hashes themselves.
"""

from __future__ import annotations

from collections.abc import Sequence


class PrefixIndex:
    """Node numbers are bit positions; `limits[node]` is how many blocks its cache is believed to hold."""

    __slots__ = ("holders", "least", "limits", "most", "recent")

    def __init__(self) -> None:
        self.holders: dict[int, int] = {}
        self.recent: dict[int, dict[int, None]] = {}
        self.limits: dict[int, int] = {}
        self.most: dict[int, int] = {}
        self.least: dict[int, int] = {}

    def add_node(self, node: int, limit: int) -> None:
        self.recent.setdefault(node, {})
        self.limits[node] = self.most[node] = max(1, limit)
        self.least[node] = max(1, limit // 20)

    def match(self, blocks: Sequence[int]) -> dict[int, int]:
        """Node -> number of leading blocks it holds, for nodes that hold at least one."""
        holders = self.holders
        depth: dict[int, int] = {}
        alive = holders.get(blocks[0], 0) if blocks else 0
        if not alive:
            return depth
        for count in range(1, len(blocks)):
            still = holders.get(blocks[count], 0) & alive
            if still != alive:
                self._mark(alive & ~still, count, depth)
                alive = still
                if not alive:
                    return depth
        self._mark(alive, len(blocks), depth)
        return depth

    def _mark(self, nodes: int, count: int, depth: dict[int, int]) -> None:
        while nodes:
            low = nodes & -nodes
            depth[low.bit_length() - 1] = count
            nodes ^= low

    def insert(self, node: int, blocks: Sequence[int]) -> None:
        """The node was given this prompt. The last block is touched first, so that a prefix outlives its continuations."""
        recent, holders, bit = self.recent[node], self.holders, 1 << node
        for block in reversed(blocks):
            if block in recent:
                del recent[block]
            else:
                holders[block] = holders.get(block, 0) | bit
            recent[block] = None
        self.trim(node)

    def trim(self, node: int) -> None:
        recent, limit = self.recent[node], self.limits[node]
        while len(recent) > limit:
            self._drop(node, next(iter(recent)))

    def _drop(self, node: int, block: int) -> None:
        del self.recent[node][block]
        left = self.holders[block] & ~(1 << node)
        if left:
            self.holders[block] = left
        else:
            del self.holders[block]

    def correct(self, node: int, expected: int, seen: int) -> None:
        """An answer told how many blocks were cached: a node that had fewer than believed holds less than believed."""
        limit = self.limits[node]
        if seen < expected:
            self.limits[node] = max(self.least[node], int(limit * 0.99))
            self.trim(node)
        elif limit < self.most[node]:
            self.limits[node] = limit + 1

    def clear(self, node: int) -> None:
        """The node lost its cache (it restarted)."""
        for block in list(self.recent[node]):
            self._drop(node, block)
