"""The reference for prefix hits: one cache as large as all nodes' together, which sees every request in the order of arrival.

No routing can do better with the same memory but by chance: a fleet of caches holds some prefixes twice, and misses where the holder
was busy. What the pool holds is there at once, as if computed in no time, and the least recently used block leaves first, the tail
of a prompt before its head, as in the engines.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from penstock.facts import BLOCK_TOKENS, Profile
from penstock.sim.arrival import Arrival
from penstock.sim.spread import ratio


def cache_tokens(fleet: Iterable[Profile]) -> int:
    """Tokens of all prefix caches together. Where the cache lives in KV memory, all of that: more than running requests leave of it."""
    return sum(profile.cache_tokens or profile.kv_tokens for profile in fleet)


def pool_hit(arrivals: Sequence[Arrival], tokens: int) -> float | None:
    """Share of prompt tokens that one cache of `tokens` would find."""
    store: OrderedDict[int, None] = OrderedDict()
    most, hits = tokens // BLOCK_TOKENS, 0
    for arrival in arrivals:
        blocks = arrival.blocks
        # At least one token of a prompt is always computed.
        depth, usable = 0, min(len(blocks), (arrival.prompt_tokens - 1) // BLOCK_TOKENS)
        while depth < usable and blocks[depth] in store:
            depth += 1
        hits += depth * BLOCK_TOKENS
        for block in reversed(blocks):
            store[block] = None
            store.move_to_end(block)
        while len(store) > most:
            store.popitem(last=False)
    return ratio(hits, sum(arrival.prompt_tokens for arrival in arrivals))
