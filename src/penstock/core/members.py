"""Pools: which nodes are in one, which requests belong to one, and so where each model's requests can go.

A request belongs to the first pool that serves its model and whose rule it meets. What meets no rule is served by the nodes of
all pools that name its model; a model that no pool names, by all nodes that have it. `findings` asks the very conditions that
`takes` tries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from penstock import config
from penstock.core.condition import Finding, PoolStep, conditions, matcher
from penstock.core.fleet import Node
from penstock.facts import Request
from penstock.policy.task import TaskClass

ANY = "*"
"""The model of those requests whose model no node names: they go to nodes that have not said what they serve."""
NONE = ""
"""In place of a pool's name, for requests that belong to none."""

Key = tuple[str, str]
"""Of a lane: model and pool."""


class Members:
    """A pool's rules, compiled once."""

    __slots__ = ("always", "conditions", "fallback", "labels", "models", "name", "nodes", "task", "task_fits", "tests")

    def __init__(self, pool: config.Pool) -> None:
        self.name, self.fallback = pool.name, pool.fallback or NONE
        self.nodes, self.labels = frozenset(pool.nodes), pool.labels
        self.models = frozenset(pool.models)
        self.conditions = conditions(pool.when)
        self.tests = [condition.holds for condition in self.conditions]
        self.task = pool.when.task
        self.task_fits = None if self.task is None else matcher(self.task)
        self.always = not self.tests and self.task is None
        """It has no rule."""

    def has(self, node: config.Node) -> bool:
        """Whether a node is in it: by its name, or by having all of its labels."""
        if node.name in self.nodes:
            return True
        return bool(self.labels) and all(node.labels.get(name) == value for name, value in self.labels.items())

    def names(self, model: str) -> bool:
        """Whether it serves the model, where its nodes have it."""
        return not self.models or model in self.models

    def takes(self, request: Request, task: TaskClass) -> bool:
        """Whether the request meets its rule."""
        if self.task_fits is not None and not self.task_fits(task.name):
            return False
        return all(test(request) for test in self.tests)

    def findings(self, request: Request, task: TaskClass) -> tuple[Finding, ...]:
        """The same for a person."""
        found = [Finding(one.of, one.wants, one.seen(request), one.holds(request)) for one in self.conditions]
        if self.task is not None and self.task_fits is not None:
            found.insert(0, Finding("class", self.task, task.name, self.task_fits(task.name)))
        return tuple(found)


class Table:
    """Lanes by what nodes serve."""

    __slots__ = ("lanes", "ways")

    def __init__(self) -> None:
        self.lanes: dict[Key, list[Node]] = {}
        """The nodes of each; never none."""
        self.ways: dict[str, tuple[list[Members], str]] = {}
        """Model -> the pools whose rules its requests are asked for, in order, and the pool of those that meet none."""


def served(nodes: Sequence[Node], pools: Sequence[Members]) -> Table:
    table = Table()
    models = dict.fromkeys(model for node in nodes for model in node.models or ())
    models.update(dict.fromkeys(sorted(kept(pools))))
    models[ANY] = None
    inside = [[node for node in nodes if pool.has(node.config)] for pool in pools]
    for model in models:
        _lead(table, model, nodes, [(pool, members) for pool, members in zip(pools, inside, strict=True) if pool.names(model)])
    return table


def _lead(table: Table, model: str, nodes: Iterable[Node], pools: Sequence[tuple[Members, list[Node]]]) -> None:
    """Add a model's lanes, and the ways to them."""
    rules: list[Members] = []
    rest: str | None = None
    for pool, members in pools:
        if able := _able(members, model):
            table.lanes[model, pool.name] = able
            if not pool.always:
                # Behind a pool that takes everything no rule is asked.
                rules += [pool] if rest is None else []
            elif rest is None:
                rest = pool.name
    if rest is None:
        named = {node.name for pool, members in pools if pool.models for node in members}
        able = _able(nodes, model)
        if left := [node for node in able if node.name in named] if any(pool.models for pool, _ in pools) else able:
            rest, table.lanes[model, NONE] = NONE, left
    if rest is not None:
        table.ways[model] = (rules, rest)


def _able(nodes: Iterable[Node], model: str) -> list[Node]:
    return [node for node in nodes if node.models is None or model in node.models]


def tried(table: Table, pools: Iterable[Members], model: str, request: Request, task: TaskClass) -> list[PoolStep]:
    """The pools that are looked at for a request for this model, up to the one it belongs to; the last matches, or it is of none."""
    steps: list[PoolStep] = []
    for pool in pools:
        if (model, pool.name) not in table.lanes:
            steps.append(PoolStep(pool.name, False))
            continue
        steps.append(PoolStep(pool.name, True, pool.findings(request, task)))
        if steps[-1].matched:
            break
    return steps


def kept(pools: Iterable[Members]) -> frozenset[str]:
    """Models that some pool names: other nodes do not serve them."""
    return frozenset(model for pool in pools for model in pool.models)
