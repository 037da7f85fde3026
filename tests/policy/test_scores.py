"""Scores by session, place and cost."""

from __future__ import annotations

import pytest
from tests.playbook import call, flying

from penstock import config
from penstock.core.classify import DEFAULT
from penstock.core.fleet import Node
from penstock.core.lane import Lane
from penstock.knobs import Knobs
from penstock.policy.score.cost import Cost
from penstock.policy.score.locality import Locality, nearness
from penstock.policy.score.session import Session

LANE = Lane("m", [])


def node(index: int, **settings: float) -> Node:
    return Node(index, config.Node(name=f"n{index}", url="http://n", **settings), Knobs(), None)  # type: ignore[arg-type]


def test_session_likes_the_node_that_served_it_last() -> None:
    nodes = [node(4), node(7), node(9)]
    assert Session().score(flying(call(1), DEFAULT, LANE, 0.0, before=7), nodes, [0] * 3, 0.0) == [0.0, 1.0, 0.0]
    assert Session().score(flying(call(1), DEFAULT, LANE, 0.0), nodes, [0] * 3, 0.0) == [0.0] * 3


def test_cost_is_what_the_configuration_says_whoever_else_is_asked() -> None:
    nodes = [node(0, cost=1.0), node(1, cost=3.5), node(2)]
    assert Cost().score(flying(call(1), DEFAULT, LANE, 0.0), nodes, [0] * 3, 0.0) == [-1.0, -3.5, 0.0]


def test_locality_is_the_nodes_nearness() -> None:
    near, far = node(0), node(1)
    near.near = 0.5
    assert Locality().score(flying(call(1), DEFAULT, LANE, 0.0), [near, far], [0] * 2, 0.0) == [0.5, 0.0]


@pytest.mark.parametrize(
    ("labels", "share"),
    [
        ({"zone": "a", "region": "eu"}, 1.0),
        ({"zone": "b", "region": "eu", "gpu": "h200"}, 0.5),
        ({"gpu": "a"}, 0.0),
        ({}, 0.0),
    ],
)
def test_nearness_is_the_share_of_the_gateways_labels(labels: dict[str, str], share: float) -> None:
    assert nearness({"zone": "a", "region": "eu"}, labels) == share


def test_gateway_without_labels_is_near_to_nobody() -> None:
    assert nearness({}, {"zone": "a"}) == 0.0
