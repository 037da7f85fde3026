"""Whom to call back from a node so that a request of a higher class begins in time.

Only work that no caller has seen anything of: streams before their first token, JSON answers while their prefill is not
predicted to be over. Nobody is called back more than `knobs.recalls` times, nor anyone who may not wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from penstock.core.fleet import Node
from penstock.core.flight import Flight
from penstock.knobs import Knobs

LOOKED_AT = 32
"""Of a node's requests, the latest: those before them have mostly begun."""


class Plan:
    __slots__ = ("node", "victims")

    def __init__(self, node: Node, victims: list[Flight]) -> None:
        self.node = node
        self.victims = victims
        """The lowest priority first, the latest first inside it."""


def recallable(flight: Flight, than: int, most: int, now: float) -> bool:
    """Whether it may be called back for one of priority `than`."""
    if flight.priority >= than or flight.owed or flight.recalls >= most or not flight.waits or flight.twin is not None:
        return False
    return flight.first < 0 if flight.request.stream else flight.done_at > now


def plan(
    flight: Flight, nodes: Sequence[Node], flights: Mapping[int, Flight], tokens: int, knobs: Knobs, now: float, slip: bool = False
) -> Plan | None:
    """The node on which the least has to be called back for `flight`, with `tokens` of KV memory, to begin in time there; with
    `slip` even if first tokens come late.
    """
    best: Plan | None = None
    for node in nodes:
        if not node.admits(now) or flight.tried & node.bit:
            continue
        victims = _victims(flight, node, flights, tokens, knobs, now, node.slip_s if slip else 0.0)
        if victims and (best is None or _cost(victims) < _cost(best.victims)):
            best = Plan(node, victims)
    return best


def relief_s(flight: Flight, nodes: Sequence[Node], flights: Mapping[int, Flight], knobs: Knobs, now: float) -> float:
    """Seconds of prefill that could be called back for requests of its priority, the nodes together."""
    return sum(victim.own_s for node in nodes for victim in _candidates(flight, node, flights, knobs, now))


def _cost(victims: list[Flight]) -> tuple[int, int, int]:
    """Who was called back before comes first, so that on the other nodes somebody is left who can be."""
    return max(victim.priority for victim in victims), len(victims), -max(victim.recalls for victim in victims)


def _candidates(flight: Flight, node: Node, flights: Mapping[int, Flight], knobs: Knobs, now: float) -> list[Flight]:
    latest = islice(reversed(node.memory.held), LOOKED_AT)
    known = [found for id in latest if (found := flights.get(id)) is not None and found.node is node]
    return [other for other in known if recallable(other, flight.priority, knobs.recalls, now)]


def _victims(
    flight: Flight, node: Node, flights: Mapping[int, Flight], tokens: int, knobs: Knobs, now: float, slip_s: float
) -> list[Flight]:
    """The fewest of the node's requests without which it could begin `flight` in time; none when there are not enough."""
    left_s = flight.due - now - node.base_s - flight.own_s * (1.0 + knobs.margin) - slip_s
    if left_s < 0:
        return []
    wait_s, slots = node.free_at - now, node.limit - node.running
    memory = node.memory
    room = memory.capacity - memory.promised() - tokens
    victims: list[Flight] = []
    for victim in sorted(_candidates(flight, node, flights, knobs, now), key=lambda other: (other.priority, -other.forwarded)):
        victims.append(victim)
        wait_s -= victim.own_s if victim.request.stream else min(victim.own_s, max(0.0, victim.done_at - now))
        slots += 1
        room += memory.held[victim.request.id][0]
        if wait_s <= left_s and slots >= 1 and (room >= 0 or len(victims) == len(memory.held)):
            return victims
    return []
