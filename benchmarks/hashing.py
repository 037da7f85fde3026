"""Consistent hashing with bounded load: which keys move, how full nodes get, and what a choice costs.

A million keys are hashed over 100 nodes, each a request that runs on. Then one node leaves and all are hashed anew: what has another
node now has moved. Of those, 1 / 100 had to. Where requests come and go, the load that others leave has a say too: the fewer run on a
node, the more chance there is in it, and the more often the bound sends a request past its key's first node. Beside it the textbook's ring
(256 points a node, the next node on the ring when one is full), over which nodes' arcs differ by chance and full nodes' keys fall to their
neighbours alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from random import Random
from time import perf_counter

from xxhash import xxh3_64_intdigest

from benchmarks.row import Row, main
from penstock import config
from penstock.core.classify import DEFAULT
from penstock.core.fleet import Node
from penstock.core.flight import Flight
from penstock.core.lane import Lane
from penstock.facts import Request
from penstock.knobs import Knobs
from penstock.policy.pick.hash import HOME, Hash

KEYS, SOME, NODES, POINTS = 1_000_000, 100_000, 100, 256
BOUND = Knobs().hash_bound
MOST_MOVED = 1 / NODES + 0.05
FLEETS = (8, 100, 800)
BY = ("session",)
Find = Callable[[Sequence[Node], Flight], int]


def fleet(count: int, capacities: Sequence[float] = (1.0,)) -> list[Node]:
    named = [config.Node(name=f"n{index}", url="http://n", capacity=capacities[index % len(capacities)]) for index in range(count)]
    return [Node(index, node, Knobs(), None) for index, node in enumerate(named)]


def flights(count: int) -> Iterator[Flight]:
    lane = Lane("m", [])
    for number in range(count):
        yield Flight(Request(id=number, model="m", session=f"session {number}"), DEFAULT, lane, 0.0)


def ours(nodes: Sequence[Node], flight: Flight) -> int:
    return Hash().place(flight, nodes, BY, BOUND)[0]


class Ring:
    """The textbook's."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.points = sorted(
            (xxh3_64_intdigest(f"{node.name} {point}".encode()), place) for place, node in enumerate(nodes) for point in range(POINTS)
        )

    def __call__(self, nodes: Sequence[Node], flight: Flight) -> int:
        most = BOUND * (sum([node.running for node in nodes]) + 1) / len(nodes)
        start = bisect_left(self.points, (xxh3_64_intdigest(flight.request.session.encode()), 0))
        for at in range(start, start + len(self.points)):
            place = self.points[at % len(self.points)][1]
            if nodes[place].running < most:
                return place
        raise AssertionError("all nodes are above what all have on average")


class Filled:
    """Where each key is, once all of them run at once."""

    def __init__(self, nodes: Sequence[Node], count: int, find: Find = ours, bound: float = BOUND) -> None:
        self.places: list[int] = []
        self.over = 0
        """Requests that a node was given above its bound."""
        for node in nodes:
            node.running = 0
        total, capacity = 0, sum(node.capacity for node in nodes)
        for flight in flights(count):
            node = nodes[find(nodes, flight)]
            total += 1
            self.over += node.running >= bound * total * node.capacity / capacity
            node.running += 1
            self.places.append(node.index)
        self.fullest = max(node.running * capacity / (total * node.capacity) for node in nodes)


def moved(before: Sequence[int], after: Sequence[int]) -> float:
    return sum(one != other for one, other in zip(before, after, strict=True)) / len(before)


def leaving(nodes: list[Node], count: int, ring: bool = False) -> tuple[float, Filled]:
    """The share that moves when a node in the middle leaves, and where all were before."""
    left = nodes[: len(nodes) // 2] + nodes[len(nodes) // 2 + 1 :]
    before = Filled(nodes, count, Ring(nodes) if ring else ours)
    return moved(before.places, Filled(left, count, Ring(left) if ring else ours).places), before


def flowing(nodes: Sequence[Node], each: int) -> tuple[list[int], float]:
    """Where keys go whose requests come and end, `each` running a node at any time, and the share that goes to its first node."""
    draw, running, places, home = Random(1), list[Node](), list[int](), 0
    for node in nodes:
        node.running = 0
    pick = Hash()
    for flight in flights(SOME):
        if len(running) >= each * NODES:
            last = draw.randrange(len(running))
            running[last], running[-1] = running[-1], running[last]
            running.pop().running -= 1
        place, score = pick.place(flight, nodes, BY, BOUND)
        home += score == HOME
        nodes[place].running += 1
        running.append(nodes[place])
        places.append(nodes[place].index)
    return places, home / SOME


def choice_us(nodes: list[Node], find: Find) -> float:
    """CPU microseconds a choice, with three requests running a node."""
    for node in nodes:
        node.running = 3
    asked = list(flights(2_000))
    rounds = []
    for _ in range(5):
        began = perf_counter()
        for flight in asked:
            find(nodes, flight)
        rounds.append(perf_counter() - began)
    return min(rounds) / len(asked) * 1e6


def moved_rows() -> list[Row]:
    share, filled = leaving(fleet(NODES), KEYS)
    uneven, mixed = leaving(fleet(NODES, (1.0, 2.0, 4.0)), SOME)
    ringed, ring = leaving(fleet(NODES), SOME, ring=True)
    return [
        Row(f"hashing: moved of {KEYS:,} keys, 1 of {NODES} nodes leaves", share, "of all", at_most=MOST_MOVED, note="1 / n + 5%"),
        Row("hashing: given to a node above its bound", filled.over, "requests", at_most=0),
        Row("hashing: fullest node / its share", filled.fullest, "x", at_most=BOUND),
        Row(
            f"hashing: moved of {SOME:,}, capacities 1, 2, 4",
            uneven,
            "of all",
            at_most=MOST_MOVED,
            note="a node of capacity 4 of 232 leaves",
        ),
        Row("hashing: given above the bound, capacities 1, 2, 4", mixed.over, "requests", at_most=0),
        Row("hashing: fullest node / its share, capacities 1, 2, 4", mixed.fullest, "x", at_most=BOUND),
        Row(f"hashing: moved of {SOME:,} on a ring", ringed, "of all"),
        Row("hashing: fullest node / its share on a ring", ring.fullest, "x"),
    ]


def flow_rows() -> list[Row]:
    rows = []
    for each in (5, 20, 100):
        nodes = fleet(NODES)
        (before, home), (after, _) = flowing(nodes, each), flowing(nodes[:50] + nodes[51:], each)
        note = f"{home:.1%} go to their key's first node"
        goal = MOST_MOVED if each >= 20 else None
        rows.append(Row(f"hashing: moved while they come and go, {each} running a node", moved(before, after), "of all", goal, note=note))
    return rows


def cost_rows() -> list[Row]:
    rows = []
    for count in FLEETS:
        nodes = fleet(count)
        rows.append(Row(f"hashing: a choice among {count} nodes", choice_us(nodes, ours), "us"))
        rows.append(Row(f"hashing: on a ring, {count} nodes", choice_us(nodes, Ring(nodes)), "us"))
        nodes = fleet(count, (1.0, 2.0, 4.0))
        rows.append(Row(f"hashing: a choice among {count} nodes, capacities 1, 2, 4", choice_us(nodes, ours), "us"))
    began = perf_counter()
    Ring(fleet(800))
    return [*rows, Row("hashing: making a ring of 800 nodes, when one comes or goes", (perf_counter() - began) * 1e3, "ms")]


def measure() -> list[Row]:
    return [*moved_rows(), *flow_rows(), *cost_rows()]


if __name__ == "__main__":
    main(measure)
