"""Contracts over the policy tables, and each policy's own rule."""

from __future__ import annotations

import random
from collections import Counter
from math import inf, isfinite
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.playbook import call, flying

from penstock import config
from penstock.core.classify import TaskClass
from penstock.core.fleet import Node
from penstock.core.flight import Flight
from penstock.core.lane import Lane
from penstock.errors import ConfigError
from penstock.facts import Outcome, Request, Signals
from penstock.knobs import Knobs
from penstock.policy import ADMIT, ORDER, PICK, RUNG, SCORE, find
from penstock.policy.admit.slo import Slo
from penstock.policy.order.deadline import PATIENCE_S, Deadline
from penstock.policy.order.fcfs import Fcfs
from penstock.policy.pick.best import Best
from penstock.policy.pick.two import Two
from penstock.policy.rung.cache import Cache
from penstock.policy.rung.sibling import Sibling
from penstock.policy.rung.smaller import Smaller
from penstock.policy.rung.step import Step
from penstock.policy.rung.ticket import Ticket
from penstock.policy.rung.wait import Wait
from penstock.policy.score.kv_room import KvRoom
from penstock.policy.score.latency import Latency
from penstock.policy.score.prefix import Prefix
from penstock.policy.score.queue import Queue
from penstock.policy.views import AdmitView, Around

LANE = Lane("m", [])


def node(index: int = 0, capacity: float = inf, reserved: int = 0, **state: Any) -> Node:
    made = Node(index, config.Node(name="n", url="http://n"), Knobs(), None)
    made.free_at, made.base_s, made.token_s = 0.0, 0.01, 1e-4
    made.memory.capacity, made.memory.reserved = capacity, reserved
    for name, value in state.items():
        setattr(made, name, value)
    return made


def flight(request: Request | None = None, arrived: float = 0.0, value: float = 1.0, **state: Any) -> Flight:
    return flying(request or call(1), TaskClass("x", 3, value=value), LANE, arrived, **{"model": "m", **state})


def view(
    waiting: int = 0, queue_max: int = 10, predicted_s: float = 1.0, left_s: float = inf, breaks: bool = False, crowds: bool = False
) -> AdmitView:
    return AdmitView(waiting, queue_max, predicted_s, left_s, breaks, crowds)


nodes = st.lists(
    st.builds(
        node,
        running=st.integers(0, 300),
        free_at=st.floats(-1e3, 1e3),
        base_s=st.floats(0, 10),
        token_s=st.floats(1e-9, 1),
        capacity=st.one_of(st.just(inf), st.floats(1, 1e7)),
        reserved=st.integers(0, 10**7),
        reported=st.builds(Signals, kv_usage=st.one_of(st.none(), st.floats(0, 1))),
    ),
    min_size=1,
    max_size=20,
)


@pytest.mark.parametrize("name", SCORE)
@given(nodes=nodes, now=st.floats(0, 1e3))
def test_scores_are_finite_one_a_node_and_the_same_when_asked_again(name: str, nodes: list[Node], now: float) -> None:
    policy, cached = find(SCORE, name, "k"), [0] * len(nodes)
    scores = policy.score(flight(), nodes, cached, now)
    assert len(scores) == len(nodes) and all(isfinite(score) for score in scores)
    assert scores == policy.score(flight(), nodes, cached, now)


def test_every_pick_goes_by_scores_or_by_the_request() -> None:
    assert all(hasattr(one, "pick") != hasattr(one, "place") for one in PICK.values())


@pytest.mark.parametrize("name", [name for name, one in PICK.items() if hasattr(one, "place")])
@given(nodes=nodes, session=st.text(max_size=5), bound=st.floats(1, 100))
def test_places_are_valid_and_the_same_when_asked_again(name: str, nodes: list[Node], session: str, bound: float) -> None:
    policy, asked = find(PICK, name, "k"), flight(call(1, session=session))
    index, score = policy.place(asked, nodes, ("session",), bound)
    assert 0 <= index < len(nodes) and isfinite(score)
    assert (index, score) == policy.place(asked, nodes, ("session",), bound)


@pytest.mark.parametrize("name", [name for name, one in PICK.items() if hasattr(one, "pick")])
@given(scores=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), seed=st.integers(0, 99))
def test_picks_are_valid_and_seeded(name: str, scores: list[float], seed: int) -> None:
    policy, among = find(PICK, name, "k"), [node()] * len(scores)
    index = policy.pick(scores, among, random.Random(seed))
    assert 0 <= index < len(scores) and index == policy.pick(scores, among, random.Random(seed))


@pytest.mark.parametrize("name", ADMIT)
def test_every_admission_refuses_a_full_queue_and_accepts_an_idle_one(name: str) -> None:
    policy = find(ADMIT, name, "k")
    assert policy.refusal(view(waiting=10)) is Outcome.REFUSED_FULL
    assert policy.refusal(view()) is None


@pytest.mark.parametrize("name", ORDER)
@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_keys_are_finite_even_without_a_deadline(name: str, arrived: float, wait: float) -> None:
    assert isfinite(find(ORDER, name, "k").key(flight(arrived=arrived)))
    assert isfinite(find(ORDER, name, "k").key(flight(arrived=arrived, due=arrived + wait)))


def test_fcfs_keeps_the_order_of_arrival_and_deadline_the_order_of_due_times() -> None:
    early, late = flight(arrived=1.0, due=9.0), flight(arrived=2.0, due=3.0)
    assert Fcfs().key(early) < Fcfs().key(late) and Deadline().key(late) < Deadline().key(early)


def test_request_without_a_deadline_is_not_passed_over_for_ever() -> None:
    assert Deadline().key(flight(arrived=0.0)) < Deadline().key(flight(arrived=PATIENCE_S, due=PATIENCE_S + 1))


def test_deadline_order_counts_from_the_latest_start() -> None:
    long, short = flight(due=9.0, own_s=5.0), flight(due=6.0, own_s=0.1)
    assert Deadline().key(long) < Deadline().key(short)


def test_slo_refuses_what_comes_too_late_or_at_others_cost_and_nothing_else() -> None:
    assert Slo().refusal(view(predicted_s=2.0, left_s=1.9)) is Outcome.REFUSED_DEADLINE
    assert Slo().refusal(view(breaks=True)) is Outcome.REFUSED_DEADLINE
    assert Slo().refusal(view(crowds=True)) is Outcome.REFUSED_DEADLINE
    assert Slo().refusal(view(predicted_s=1.9, left_s=1.9)) is None
    assert Slo().refusal(view(predicted_s=1e9)) is None


def test_latency_weighs_backlog_against_cached_tokens() -> None:
    near = [node(free_at=0.05), node()]
    assert order(Latency().score(flight(), near, [900, 0], 0.0)) == [0, 1]
    far = [node(free_at=0.2), node()]
    assert order(Latency().score(flight(), far, [900, 0], 0.0)) == [1, 0]


def order(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda i: -scores[i])


def test_latency_prefers_the_smaller_batch_among_idle_nodes() -> None:
    assert order(Latency().score(flight(), [node(running=50), node(running=1)], [0, 0], 0.0)) == [1, 0]


def test_queue_prefix_and_kv_room_rank_as_named() -> None:
    assert order(Queue().score(flight(), [node(running=2), node(running=1)], [0, 0], 0.0)) == [1, 0]
    assert Prefix().score(flight(), [node(), node()], [500, 0], 0.0) == [0.5, 0.0]
    room = [node(capacity=100, reserved=75), node(capacity=100, reserved=200), node(reported=Signals(kv_usage=0.25)), node()]
    assert KvRoom().score(flight(), room, [0] * 4, 0.0) == [0.25, 0.0, 0.75, 1.0]


def test_best_shares_among_near_equals_and_keeps_to_the_best_otherwise() -> None:
    rng = random.Random(1)
    drawn = Counter(Best().pick([-1.0, -1.01, -2.0], [node()] * 3, rng) for _ in range(1_000))
    assert set(drawn) == {0, 1} and min(drawn.values()) > 400


def test_two_takes_the_better_of_two_drawn() -> None:
    rng = random.Random(1)
    drawn = Counter(Two().pick([3.0, 2.0, 1.0], [node()] * 3, rng) for _ in range(3_000))
    assert drawn[2] == 0 and drawn[0] == pytest.approx(2_000, rel=0.1)
    assert Two().pick([1.0], [node()], rng) == 0


def test_outside_policy_is_named_by_module_and_class() -> None:
    assert isinstance(find(PICK, "penstock.policy.pick.two:Two", "policy.pick"), Two)


@pytest.mark.parametrize("name", ["nope", "no.such.module:X", "penstock.policy.pick.two:Nope"])
def test_unknown_policy_is_an_error_that_names_the_key(name: str) -> None:
    with pytest.raises(ConfigError, match=r"policy\.pick"):
        find(PICK, name, "policy.pick")


AROUND = Around({"m": "s"}, {"p": "q", "q": "r"})


def test_every_rung_but_the_end_has_a_class() -> None:
    assert set(RUNG) == {str(rung) for rung in config.Rung} - {"reject"}


def test_waiting_is_offered_to_all() -> None:
    assert Wait().step(flight(), AROUND) == Step(wait=True)


def test_a_kept_answer_is_offered_where_it_is_at_hand() -> None:
    assert Cache().step(flight(call(1, cached=True)), AROUND) == Step(divert=True)
    assert Cache().step(flight(call(1)), AROUND) is None


def test_the_smaller_model_is_offered_where_there_is_one() -> None:
    assert Smaller().step(flight(), AROUND) == Step(lane="s", model="s")
    assert Smaller().step(flight(model="s"), AROUND) is None


def test_the_pool_that_the_last_one_falls_back_on_is_offered() -> None:
    seen = flight()
    seen.lane = Lane("m", [], "p")
    assert Sibling().step(seen, AROUND) == Step(pool="q")
    seen.aside = "q"
    assert Sibling().step(seen, AROUND) == Step(pool="r")
    seen.aside = "r"
    assert Sibling().step(seen, AROUND) is None
    assert Sibling().step(flight(), AROUND) is None, "of no pool"


def test_a_ticket_is_offered_where_jobs_are_kept_and_not_to_a_job() -> None:
    assert Ticket().step(flight(call(1, ticket=True)), AROUND) == Step(divert=True)
    assert Ticket().step(flight(call(1)), AROUND) is None
    assert Ticket().step(flight(call(1, ticket=True, patient=True)), AROUND) is None


@given(
    st.lists(st.tuples(st.sampled_from((0.0, 0.01, 0.5, 3.0)), st.integers(0, 4), st.sampled_from((0, 512))), min_size=1, max_size=12),
    st.integers(0, 1_000),
)
def test_latency_leads_to_the_node_that_its_scores_and_the_best_pick_come_to(rows: list[tuple[float, int, int]], seed: int) -> None:
    nodes = [node(index, free_at=free_at, running=running) for index, (free_at, running, _) in enumerate(rows)]
    seen, cached = flight(call(1, tokens=2_000)), [hit for *_, hit in rows]
    scores = Latency().score(seen, nodes, cached, 0.25)
    one, other = random.Random(seed), random.Random(seed)
    index = Best().pick(scores, nodes, one)
    assert Latency().lead(seen, nodes, cached, 0.25, Best().tolerance, other) == (index, scores[index])
    assert one.random() == other.random(), "with as many draws"


@given(st.sampled_from(sorted(ADMIT)), st.floats(0, 100), st.floats(0, 100), st.integers(1, 10))
def test_who_can_start_at_once_and_in_time_is_let_in_by_policies_that_say_so(
    name: str, predicted_s: float, more_s: float, most: int
) -> None:
    policy = find(ADMIT, name, "k")
    assert policy.prompt
    assert policy.refusal(view(0, most, predicted_s, predicted_s + more_s)) is None
