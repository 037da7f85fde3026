"""Other routers' published rules, as policies of the same core: each class says where its rule and its numbers come from.

They keep the tables that those routers keep, so unlike the core's own policies they remember. `score` is called once for each
request, just before it is forwarded, and answers 1 for the node the rule chooses (or a score for each).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import ceil
from random import Random
from typing import TYPE_CHECKING

import xxhash

from penstock.facts import BLOCK_TOKENS

if TYPE_CHECKING:
    from penstock.policy.views import FlightView, NodeView


class MaxScore:
    """The highest score, equal ones at random. llm-d: max-score-picker shuffles, then sorts."""

    def pick(self, scores: Sequence[float], nodes: Sequence[NodeView], rng: Random) -> int:
        best = max(scores)
        equal = [index for index, score in enumerate(scores) if score == best]
        return equal[0] if len(equal) == 1 else rng.choice(equal)


class RoundRobin:
    """The next node in turn. nginx's default: nginx.org/en/docs/http/load_balancing.html."""

    def __init__(self) -> None:
        self.last = -1

    def score(self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float) -> list[float]:
        following = [node.index for node in nodes if node.index > self.last]
        self.last = min(following) if following else min(node.index for node in nodes)
        return [float(node.index == self.last) for node in nodes]


class AnyNode:
    """Any node, all alike. llm-d: random-picker."""

    def score(self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float) -> list[float]:
        return [0.0] * len(nodes)


class LeastTokens:
    """The fewest tokens in flight, prompts and what is expected of answers. Load balancing as Mooncake compares itself with."""

    def score(self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float) -> list[float]:
        return [-float(node.kv().reserved) for node in nodes]


class LeastRequests:
    """The fewest requests in flight. nginx `least_conn`, HAProxy `leastconn`; equal ones at random here."""

    def score(self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float) -> list[float]:
        return [-float(node.running) for node in nodes]


class ConsistentHash:
    """The key's place on a hash ring, passing over nodes above their share of the load.

    Mirrokni, Thorup and Zadimoghaddam, Consistent Hashing with Bounded Loads (arXiv:1608.01350). Load factor 1.25 as brpc's
    `chash_bounded_load_factor`. The key is the session, else the prompt's first block, else the tenant, else the request.
    """

    FACTOR = 1.25
    REPLICAS = 256

    def __init__(self) -> None:
        self.ring: list[tuple[int, str]] = []
        self.names: set[str] = set()

    def score(self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float) -> list[float]:
        chosen = self.choose(self.key(flight), nodes)
        return [float(node.name == chosen) for node in nodes]

    def key(self, flight: FlightView) -> str:
        request = flight.request
        first = f"block {request.blocks[0]}" if request.blocks else ""
        return request.session or first or request.tenant or f"request {request.id}"

    def choose(self, key: str, nodes: Sequence[NodeView]) -> str:
        running = {node.name: node.running for node in nodes}
        self.place(running)
        bound = ceil(self.FACTOR * (sum(running.values()) + 1) / len(running))
        start = bisect_left(self.ring, (xxhash.xxh3_64_intdigest(key.encode()), ""))
        for step in range(len(self.ring)):
            name = self.ring[(start + step) % len(self.ring)][1]
            if running.get(name, bound) < bound:
                return name
        return nodes[0].name

    def place(self, running: dict[str, int]) -> None:
        for name in running.keys() - self.names if running.keys() != self.names else ():
            self.names.add(name)
            self.ring += [(xxhash.xxh3_64_intdigest(f"{name} {replica}".encode()), name) for replica in range(self.REPLICAS)]
            self.ring.sort()


class SglangCacheAware:
    """SGLang's router: by prefix while load is even, by load when it is not.

    sgl-project/sglang, sgl-router/src/policies/cache_aware.rs; defaults of py_src/sglang_router/router_args.py:
    cache_threshold 0.3, balance_abs_threshold 64, balance_rel_threshold 1.5, eviction every 120 s down to 2^26 characters a
    worker (four to a token here). Its tree of characters is a tree of 512-token blocks here, so a match is rounded down.
    """

    CACHE_THRESHOLD = 0.3
    BALANCE_ABS_THRESHOLD = 64
    BALANCE_REL_THRESHOLD = 1.5
    EVICTION_S = 120.0
    TREE_BLOCKS = 2**26 // (4 * BLOCK_TOKENS)

    def __init__(self) -> None:
        self.holders: dict[int, dict[str, None]] = {}
        """Block -> nodes that were sent it, the first one first."""
        self.held: dict[str, dict[int, None]] = {}
        """Node -> its blocks, least recently sent first."""
        self.unshared: dict[str, int] = {}
        """Node -> tokens of prompts' ends that fill no block."""
        self.evicted_at = 0.0

    def score(self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float) -> list[float]:
        request = flight.request
        for node in nodes:
            self.held.setdefault(node.name, {})
        if now - self.evicted_at >= self.EVICTION_S:
            self.evict()
            self.evicted_at = now
        chosen = self.choose(request.blocks, request.prompt_tokens, nodes)
        self.insert(request.blocks, request.prompt_tokens, chosen)
        return [float(node.name == chosen) for node in nodes]

    def choose(self, blocks: Sequence[int], tokens: int, nodes: Sequence[NodeView]) -> str:
        loads = [node.running for node in nodes]
        most, least = max(loads), min(loads)
        if most - least > self.BALANCE_ABS_THRESHOLD and most > least * self.BALANCE_REL_THRESHOLD:
            return nodes[loads.index(least)].name
        matched, holder = self.match(blocks)
        known = matched * BLOCK_TOKENS / tokens > self.CACHE_THRESHOLD
        name = holder if known else min((node.name for node in nodes), key=self.size)
        return name if any(node.name == name for node in nodes) else nodes[0].name

    def match(self, blocks: Sequence[int]) -> tuple[int, str]:
        """How many leading blocks some node was sent, and the first node that was sent the last of them."""
        depth, holder = 0, ""
        for block in blocks:
            holders = self.holders.get(block)
            if not holders:
                break
            depth, holder = depth + 1, next(iter(holders))
        return depth, holder

    def size(self, name: str) -> int:
        """Tokens in the node's tree."""
        return len(self.held[name]) * BLOCK_TOKENS + self.unshared.get(name, 0)

    def insert(self, blocks: Sequence[int], tokens: int, name: str) -> None:
        held = self.held[name]
        for block in reversed(blocks):
            held.pop(block, None)
            held[block] = None
            self.holders.setdefault(block, {})[name] = None
        self.unshared[name] = self.unshared.get(name, 0) + tokens - len(blocks) * BLOCK_TOKENS

    def evict(self) -> None:
        for name, held in self.held.items():
            while self.size(name) > self.TREE_BLOCKS * BLOCK_TOKENS and held:
                block = next(iter(held))
                del held[block]
                del self.holders[block][name]
                if not self.holders[block]:
                    del self.holders[block]
            if not held:
                self.unshared[name] = 0


class LlmdQueue:
    """llm-d's queue-scorer: reported waiting requests, 1 for the fewest down to 0 for the most; 1 for all when they are equal.

    kubernetes-sigs/gateway-api-inference-extension, pkg/epp/scheduling/framework/plugins/scorer/queue.go.
    """

    def score(self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float) -> list[float]:
        waiting = [node.reported.waiting or 0 for node in nodes]
        most, least = max(waiting), min(waiting)
        return [1.0 if most == least else (most - count) / (most - least) for count in waiting]


class LlmdKvUsage:
    """llm-d's kv-cache-utilization-scorer: 1 less the reported share of KV memory in use (scorer/kvcache_utilization.go)."""

    def score(self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float) -> list[float]:
        return [1.0 - (node.reported.kv_usage or 0.0) for node in nodes]


class LlmdPrefix:
    """llm-d's prefix-cache-scorer: share of the prompt's first blocks that the node was sent before.

    plugins/multi/prefix/plugin.go: at most 256 blocks of 64 characters (16 tokens) are looked at, 4,096 tokens.
    """

    MOST_TOKENS = 256 * 16

    def score(self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float) -> list[float]:
        most = min(self.MOST_TOKENS, flight.request.prompt_tokens)
        return [min(hit, most) / most for hit in cached]
