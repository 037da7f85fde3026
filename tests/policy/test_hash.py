"""Consistent hashing with bounded load: where keys go, what moves, and that nobody is given more than the bound allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.playbook import call, flying

from penstock import config
from penstock.core.classify import DEFAULT
from penstock.core.fleet import Node
from penstock.core.lane import Lane
from penstock.facts import Request
from penstock.knobs import Knobs
from penstock.policy.pick.hash import ELSEWHERE, HOME, Hash, key_of

LANE = Lane("m", [])
BY = ("session", "prefix", "tenant")
LOOSE = 1e6


def node(index: int, capacity: float = 1.0, running: int = 0) -> Node:
    made = Node(index, config.Node(name=f"n{index}", url="http://n", capacity=capacity), Knobs(), None)
    made.running = running
    return made


def place(nodes: Sequence[Node], request: Request, bound: float = LOOSE, by: Sequence[str] = BY) -> tuple[Node, float]:
    index, score = Hash().place(flying(request, DEFAULT, LANE, 0.0), nodes, by, bound)
    return nodes[index], score


def homes(nodes: Sequence[Node], keys: int = 2_000) -> dict[str, str]:
    return {f"s{key}": place(nodes, call(1, session=f"s{key}"))[0].name for key in range(keys)}


def test_key_keeps_its_node_whatever_the_request_and_the_order_of_nodes() -> None:
    nodes = [node(index) for index in range(8)]
    assert place(nodes, call(1, session="x")) == place(nodes[::-1], call(2, session="x", tokens=9, blocks=(5,)))


def test_gateways_agree_on_where_keys_go() -> None:
    """Replicas, and versions to come, must find the same nodes: these were written down once."""
    nodes = [node(index) for index in range(10)]
    asked = (call(1, session="a"), call(1, session="b", tenant="t"), call(1, blocks=(1, 2)), call(1, tenant="t"))
    assert [place(nodes, one)[0].name for one in asked] == GOLDEN


GOLDEN = ["n2", "n9", "n1", "n1"]


def test_all_get_their_share() -> None:
    found = Counter(homes([node(index) for index in range(10)], 10_000).values())
    assert len(found) == 10 and min(found.values()) > 880 and max(found.values()) < 1_120


def test_share_follows_capacity() -> None:
    found = Counter(homes([node(0, 1.0), node(1, 2.0), node(2, 5.0)], 8_000).values())
    assert [found[f"n{index}"] for index in range(3)] == pytest.approx([1_000, 2_000, 5_000], rel=0.1)


def test_prefixes_numbered_in_a_row_spread_as_evenly() -> None:
    nodes = [node(index) for index in range(10)]
    found = Counter(place(nodes, call(1, blocks=(number,)))[0].name for number in range(10_000))
    assert len(found) == 10 and min(found.values()) > 880 and max(found.values()) < 1_120


def test_node_that_leaves_moves_its_own_keys_alone_and_they_spread() -> None:
    nodes = [node(index) for index in range(10)]
    before, after = homes(nodes), homes(nodes[:3] + nodes[4:])
    gone = [key for key, home in before.items() if home == "n3"]
    assert all(after[key] == home for key, home in before.items() if home != "n3")
    assert len({after[key] for key in gone}) == 9


def test_node_that_comes_takes_its_share_and_nothing_else_moves() -> None:
    nodes = [node(index) for index in range(10)]
    before, after = homes(nodes), homes([*nodes, node(10, 2.0)])
    assert {after[key] for key in before if after[key] != before[key]} == {"n10"}


def test_full_node_is_passed_over_for_another_of_each_keys_own() -> None:
    nodes = [node(index) for index in range(5)]
    keys = [key for key, home in homes(nodes).items() if home == "n0"]
    nodes[0].running = 10
    found = [place(nodes, call(1, session=key), 1.25) for key in keys]
    assert {one.name for one, _ in found} == {"n1", "n2", "n3", "n4"}
    assert {score for _, score in found} == {ELSEWHERE}


def test_node_is_used_up_to_its_bound_and_no_further() -> None:
    nodes = [node(index) for index in range(3)]
    home, _ = place(nodes, call(1, session="x"))
    for one in nodes:
        one.running = 4
    home.running = 6  # 14 run and this one comes: 1.25 x 15 / 3 = 6.25, so up to 7
    assert place(nodes, call(1, session="x"), 1.25) == (home, HOME)
    home.running = 7
    assert place(nodes, call(1, session="x"), 1.25)[0] is not home


def test_key_is_the_first_of_what_is_named_that_the_request_has() -> None:
    asked = call(1, session="s", blocks=(5, 6), tenant="t")
    alone = [key_of(asked, (kind,)) for kind in BY]
    assert len(set(alone)) == 3
    assert key_of(asked, BY) == alone[0] and key_of(asked, ("tenant", "session")) == alone[2]
    assert key_of(call(2, blocks=(5, 9), tenant="t"), BY) == alone[1]
    assert key_of(call(2, tenant="t"), BY) == alone[2]


def test_sessions_of_the_same_name_are_apart_for_each_tenant() -> None:
    assert key_of(call(1, session="s", tenant="a"), BY) != key_of(call(1, session="s", tenant="b"), BY)


def test_requests_without_a_key_spread() -> None:
    nodes = [node(index) for index in range(4)]
    found = Counter(place(nodes, call(id))[0].name for id in range(1_000))
    assert len(found) == 4 and min(found.values()) > 200


capacities = st.sampled_from((0.25, 1.0, 1.0, 3.0))
moves = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.integers(0, 5)),
        st.tuples(st.just("end"), st.integers(0, 10**6)),
        st.tuples(st.just("join"), capacities),
        st.tuples(st.just("leave"), st.integers(0, 10**6)),
    ),
    max_size=150,
)


@given(st.lists(capacities, min_size=1, max_size=6), moves, st.floats(1.0, 3.0))
def test_nobody_is_ever_given_more_than_the_bound(first: list[float], moves: list[tuple[str, float]], bound: float) -> None:
    """Few keys, so that they press on their nodes. What ended or left may leave others above; they are given nothing until that is over."""
    nodes = [node(index, capacity) for index, capacity in enumerate(first)]
    running: list[Node] = []
    for number, (move, what) in enumerate(moves):
        if move == "arrive":
            chosen, _ = place(nodes, call(1, session=f"s{what}"), bound)
            chosen.running += 1
            running.append(chosen)
            share = chosen.capacity / sum(one.capacity for one in nodes)
            # At most the next whole number above the bound.
            assert chosen.running < bound * share * sum(one.running for one in nodes) * (1 + 1e-9) + 1
        elif move == "end" and running:
            running.pop(int(what) % len(running)).running -= 1
        elif move == "join":
            nodes.append(node(1_000 + number, what))
        elif move == "leave" and len(nodes) > 1:
            gone = nodes.pop(int(what) % len(nodes))
            running = [one for one in running if one is not gone]
