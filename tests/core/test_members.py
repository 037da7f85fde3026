"""Which nodes are in which pool, and where the requests of each model can go."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.playbook import call

from penstock import config
from penstock.config import PoolWhen, Range
from penstock.core.fleet import Node
from penstock.core.members import ANY, NONE, Members, served
from penstock.knobs import Knobs
from penstock.policy.task import TaskClass

TASK = TaskClass("trade-now", 3)
LARGE, DESK = PoolWhen(prompt_tokens=Range(ge=1_000)), PoolWhen(tenant="desk")


def nodes(**models: tuple[str, ...]) -> list[Node]:
    return [node(index, name, models=of) for index, (name, of) in enumerate(models.items())]


def node(index: int, name: str, **more: Any) -> Node:
    return Node(index, config.Node(name=name, url="http://127.0.0.1:9", **more), Knobs(), None)


def pool(*members: str, name: str = "", **more: Any) -> Members:
    return Members(config.Pool(name=name or "-".join(members) or "p", nodes=members, **more))


def lanes(nodes: list[Node], *pools: Members) -> dict[str, list[str]]:
    """`model@pool` -> nodes."""
    table = served(nodes, pools)
    return {f"{model}@{pool}" if pool else model: [node.name for node in members] for (model, pool), members in table.lanes.items()}


def ways(nodes: list[Node], *pools: Members) -> dict[str, list[str]]:
    """Model -> the pools that are asked, and where the rest goes."""
    return {model: [*(rule.name for rule in rules), rest] for model, (rules, rest) in served(nodes, pools).ways.items()}


# --- without rules


def test_model_is_served_by_the_nodes_that_name_it() -> None:
    assert lanes(nodes(a=("m",), b=("m", "n"), c=("n",))) == {"m": ["a", "b"], "n": ["b", "c"]}


def test_node_that_names_nothing_serves_every_model_and_the_lane_of_the_rest() -> None:
    assert lanes(nodes(a=("m",), b=())) == {"m": ["a", "b"], ANY: ["b"]}


def test_pool_keeps_its_model_to_its_nodes_and_leaves_other_models_alone() -> None:
    assert lanes(nodes(a=("m", "n"), b=("m", "n")), pool("b", models=("m",))) == {"m@b": ["b"], "n": ["a", "b"]}


def test_pool_without_models_takes_all_that_its_nodes_have() -> None:
    fleet = nodes(a=("m", "n"), b=("m", "o"))
    assert lanes(fleet, pool("b")) == {"m@b": ["b"], "n": ["a"], "o@b": ["b"]}
    assert ways(fleet, pool("b")) == {"m": ["b"], "n": [NONE], "o": ["b"]}


def test_pool_names_the_models_of_nodes_that_have_not_told_theirs() -> None:
    assert lanes(nodes(a=(), b=()), pool("a", models=("m",))) == {"m@a": ["a"], ANY: ["a", "b"]}


def test_pool_does_not_make_a_node_serve_what_it_lacks_and_nobody_else_does() -> None:
    assert lanes(nodes(a=("n",), b=("m",)), pool("a", models=("m",))) == {"n": ["a"]}


def test_of_two_pools_without_rules_the_first_is_used_and_the_second_can_be_reached_as_its_fallback() -> None:
    fleet, pools = nodes(a=("m",), b=("m",)), (pool("a", fallback="b"), pool("b"))
    assert lanes(fleet, *pools) == {"m@a": ["a"], "m@b": ["b"]}
    assert ways(fleet, *pools) == {"m": ["a"]}


# --- with rules


def test_what_meets_no_rule_goes_to_the_first_pool_without_one() -> None:
    fleet, pools = nodes(a=("m",), b=("m",), c=("m",)), (pool("a", when=LARGE), pool("b"), pool("c", when=DESK))
    assert ways(fleet, *pools) == {"m": ["a", "b"]}, "behind a pool that takes everything no rule is asked"


def test_what_meets_no_rule_where_all_have_one_is_served_by_all_that_have_the_model() -> None:
    fleet, pools = nodes(a=("m",), b=("m",)), (pool("a", when=LARGE),)
    assert ways(fleet, *pools) == {"m": ["a", NONE]}
    assert lanes(fleet, *pools) == {"m@a": ["a"], "m": ["a", "b"]}


def test_what_meets_no_rule_of_the_pools_that_name_its_model_stays_inside_them() -> None:
    fleet = nodes(a=("m",), b=("m",), c=("m",))
    pools = (pool("a", models=("m",), when=LARGE), pool("c", models=("m",), when=DESK))
    assert lanes(fleet, *pools) == {"m@a": ["a"], "m@c": ["c"], "m": ["a", "c"]}


def test_a_pool_whose_nodes_lack_the_model_is_passed_over() -> None:
    fleet = nodes(a=("n",), b=("m",))
    assert ways(fleet, pool("a", when=LARGE), pool("b")) == {"m": ["b"], "n": ["a", NONE]}


def test_models_that_nobody_names_have_pools_too() -> None:
    fleet = nodes(a=(), b=(), c=("m",))
    assert ways(fleet, pool("a", when=LARGE), pool("b", "c", name="rest")) == {"m": ["a", "rest"], ANY: ["a", "rest"]}
    assert lanes(fleet, pool("a", when=LARGE), pool("b", "c", name="rest"))[f"{ANY}@rest"] == ["b"]


# --- labels


@pytest.mark.parametrize(
    ("labels", "inside"),
    [
        ({"zone": "a"}, True),
        ({"zone": "a", "gpu": "h200"}, True),
        ({"zone": "b"}, False),
        ({"zone": "a", "gpu": "h100"}, False),
        ({"disk": ""}, False),
        ({}, False),
    ],
)
def test_a_node_with_all_labels_is_in_it(labels: dict[str, str], inside: bool) -> None:
    one = config.Node(name="x", url="http://127.0.0.1:9", labels={"zone": "a", "gpu": "h200"})
    assert Members(config.Pool(name="p", labels=labels)).has(one) is inside
    assert Members(config.Pool(name="p", labels=labels, nodes=("x",))).has(one), "a name is enough"


# --- rules


def test_all_of_a_rule_must_hold_and_the_class_is_part_of_it() -> None:
    trade = pool("a", when=PoolWhen(task="trade*", tenant="desk", prompt_tokens=Range(lt=2_000)))
    assert trade.takes(call(1, tenant="desk"), TASK)
    assert not trade.takes(call(1, tenant="lab"), TASK)
    assert not trade.takes(call(1, tenant="desk", tokens=2_000), TASK)
    assert not trade.takes(call(1, tenant="desk"), TaskClass("rest", 3))


def test_who_asks_is_told_what_each_condition_saw() -> None:
    found = pool("a", when=PoolWhen(task="trade*", tenant="desk")).findings(call(1, tenant="lab"), TASK)
    assert [(one.of, one.wants, one.seen, one.holds) for one in found] == [
        ("class", "trade*", "trade-now", True),
        ("tenant", "desk", "lab", False),
    ]


rules = st.builds(
    PoolWhen,
    task=st.none() | st.sampled_from(["trade*", "rest"]),
    tenant=st.none() | st.sampled_from(["desk", "*"]),
    difficulty=st.none() | st.just(Range(ge=0.5)),
    session=st.none() | st.just("*"),
    prompt_tokens=st.none() | st.just(Range(ge=1_000)),
)


@given(rules, st.sampled_from(["", "desk", "lab"]), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from(["", "s"]), st.integers(1, 2_000))
def test_what_is_told_is_what_is_done(when: PoolWhen, tenant: str, difficulty: float, session: str, tokens: int) -> None:
    one = pool("a", when=when)
    request = call(1, tenant=tenant, difficulty=difficulty, session=session, tokens=tokens)
    for task in (TASK, TaskClass("rest", 3)):
        assert one.takes(request, task) == all(finding.holds for finding in one.findings(request, task))
        assert one.takes(request, task) or not one.always
