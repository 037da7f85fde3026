"""A configuration's nodes and pools over the simulated machines.

Machines are named n0, n1, ... and stand for the configuration's nodes in turn: with three nodes configured n0, n3 and n6 stand for the
first of them. They have its labels, cost and capacity, and are in the pools that it is in; so `--nodes 30` is a fleet ten times as large,
pools and all. A model of the workload that no configured node names is served by all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from penstock.config import Config, Node, Pool


def stand_in(machines: Sequence[Node], given: Config) -> tuple[tuple[Node, ...], tuple[Pool, ...]]:
    """The machines as nodes of the configuration, and its pools with their names."""
    if not given.pools or not given.nodes:
        return tuple(machines), ()
    named = {model for node in given.nodes for model in node.models}
    nodes: list[Node] = []
    names: dict[str, list[str]] = {}
    for index, machine in enumerate(machines):
        node = given.nodes[index % len(given.nodes)]
        names.setdefault(node.name, []).append(machine.name)
        others = [model for model in machine.models if model not in named]
        models = tuple(dict.fromkeys((*node.models, *others))) if node.models else tuple(dict.fromkeys((*machine.models, *sorted(named))))
        nodes.append(msgspec.structs.replace(machine, labels=node.labels, cost=node.cost, capacity=node.capacity, models=models))
    pools = [
        msgspec.structs.replace(pool, nodes=tuple(name for node in pool.nodes for name in names.get(node, ()))) for pool in given.pools
    ]
    return tuple(nodes), tuple(pools)
