"""A lane's drain rate, and which nodes serve which model."""

from __future__ import annotations

import pytest
from tests.playbook import call

from penstock import config
from penstock.core.classify import TaskClass
from penstock.core.fleet import Node
from penstock.core.flight import Flight
from penstock.core.lane import ANY, Lane, served
from penstock.knobs import Knobs


def nodes(**models: tuple[str, ...]) -> list[Node]:
    return [
        Node(index, config.Node(name=name, url="http://127.0.0.1:9", models=served), Knobs(), None)
        for index, (name, served) in enumerate(models.items())
    ]


def names(table: dict[str, list[Node]]) -> dict[str, list[str]]:
    return {model: [node.name for node in members] for model, members in table.items()}


def pool(*members: str, models: tuple[str, ...]) -> config.Pool:
    return config.Pool(name="-".join(members), nodes=members, models=models)


def test_drain_time_is_unknown_until_the_second_dispatch() -> None:
    lane = Lane("m", [])
    lane.drained(10.0)
    assert lane.drain_s == 0.0 and lane.snapshot(10.0).drained_per_s == 0.0
    lane.drained(10.5)
    assert lane.drain_s == 0.5 and lane.snapshot(10.5).drained_per_s == 2.0


def test_drain_time_follows_a_change_slowly() -> None:
    lane, now = Lane("m", []), 1.0
    for _ in range(50):
        now += 0.5
        lane.drained(now)
    lane.drained(now + 2.5)
    assert lane.drain_s == pytest.approx(0.6)
    for count in range(200):
        lane.drained(now + 5.0 + 2.5 * count)
    assert lane.drain_s == pytest.approx(2.5, rel=0.01)


def test_snapshot_counts_what_waits_by_class_and_tells_the_oldest() -> None:
    lane = Lane("m", [])
    assert (lane.snapshot(9.0).waiting, lane.snapshot(9.0).oldest_s, lane.snapshot(9.0).classes) == (0, 0.0, {})
    for id, (name, arrived) in enumerate((("x", 3.0), ("y", 1.0), ("x", 2.0))):
        lane.queue.push(Flight(call(id), TaskClass(name, 3), lane, arrived))
    seen = lane.snapshot(9.0)
    assert (seen.model, seen.waiting, seen.oldest_s, seen.classes) == ("m", 3, 8.0, {"x": 2, "y": 1})


def test_model_is_served_by_the_nodes_that_name_it() -> None:
    assert names(served(nodes(a=("m",), b=("m", "n"), c=("n",)), ())) == {"m": ["a", "b"], "n": ["b", "c"]}


def test_node_that_names_nothing_serves_every_model_and_the_lane_of_the_rest() -> None:
    assert names(served(nodes(a=("m",), b=()), ())) == {"m": ["a", "b"], ANY: ["b"]}


def test_pool_keeps_its_model_to_its_nodes_and_leaves_other_models_alone() -> None:
    table = served(nodes(a=("m", "n"), b=("m", "n")), (pool("b", models=("m",)),))
    assert names(table) == {"m": ["b"], "n": ["a", "b"]}


def test_pools_that_name_one_model_add_up() -> None:
    pools = (pool("a", models=("m",)), pool("c", models=("m",)))
    assert names(served(nodes(a=("m",), b=("m",), c=("m",)), pools)) == {"m": ["a", "c"]}


def test_pool_names_the_models_of_nodes_that_have_not_told_theirs() -> None:
    table = served(nodes(a=(), b=()), (pool("a", models=("m",)),))
    assert names(table) == {"m": ["a"], ANY: ["a", "b"]}


def test_pool_does_not_make_a_node_serve_what_it_lacks() -> None:
    assert names(served(nodes(a=("n",)), (pool("a", models=("m",)),))) == {"n": ["a"], "m": []}
