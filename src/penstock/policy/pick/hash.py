"""Consistent hashing with bounded load: a key's requests go to one node, as long as that has no more than its share.

Weighted rendezvous hashing (Thaler and Ravishankar, 1998; weights: Schindelhauer and Schomaker, 2005): each node draws a number from
the key and its own name, and the best draw wins. So a node that leaves moves its own keys only, to all others alike, and one that
comes takes its share and nothing else moves. There is no ring to keep or to build again when nodes come and go.

The bound is that of Mirrokni, Thorup and Zadimoghaddam (arXiv:1608.01350): nobody is given more than `bound` times its share of all
that run. What does not fit goes to the key's next draw. That order is another for each key, so one full node's keys
spread over all others, where a ring's next node would be given them all (Chen, Coleman and Shrivastava, arXiv:1908.08762).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log1p
from typing import TYPE_CHECKING

from xxhash import xxh3_64_intdigest

if TYPE_CHECKING:
    from penstock.facts import Request
    from penstock.policy.views import FlightView, NodeView

WORD = 2**64 - 1
UNIT = 2.0**-64
HOME, ELSEWHERE = 1.0, 0.0


class Hash:
    def place(self, flight: FlightView, nodes: Sequence[NodeView], by: Sequence[str], bound: float) -> tuple[int, float]:
        key, total, capacity = key_of(flight.request, by), 1, 0.0
        for node in nodes:
            total += node.running
            capacity += node.capacity
        share = bound * total / capacity
        home = chosen = -1
        least = nearest = inf
        for place, node in enumerate(nodes):
            draw = 1.0 - xxh3_64_intdigest(node.tag, key) * UNIT
            # The first of exponential waiting times, at rates that are the capacities, is each node's with the odds of its capacity.
            # None is shorter than its draw: hardly any logarithm has to be taken.
            if draw < nearest * node.capacity:
                wait = -log1p(-draw) / node.capacity if draw < 1.0 else inf
                if wait < least:
                    least, home = wait, place
                if wait < nearest and node.running < share * node.capacity:
                    nearest, chosen = wait, place
        # Somebody is always below the bound; rounding alone could say otherwise.
        return (home, HOME) if chosen in (home, -1) else (chosen, ELSEWHERE)


def key_of(request: Request, by: Sequence[str]) -> int:
    """The first of what `by` names that the request has, as a 64-bit number; salted by tenant, as a prompt's hashes are already."""
    for kind in by:
        if kind == "session" and request.session:
            return xxh3_64_intdigest(f"session {request.tenant} {request.session}".encode(errors="surrogatepass"))
        if kind == "prefix" and request.blocks:
            # Hashed once more: small numbers, as traces have them, would be drawn alike by nodes whose names differ little.
            return xxh3_64_intdigest(b"prefix", request.blocks[0] & WORD)
        if kind == "tenant" and request.tenant:
            return xxh3_64_intdigest(f"tenant {request.tenant}".encode())
    # It has nothing in common with any other: they spread.
    return xxh3_64_intdigest(f"request {request.id}".encode())
