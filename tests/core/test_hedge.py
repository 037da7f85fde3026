"""A second try on another node, when the first is overdue."""

from __future__ import annotations

from math import inf

import pytest
from tests.playbook import NOTHING, Play, build, call, forward, reject

from penstock.config import Class
from penstock.core import Core
from penstock.core.classify import DEFAULT
from penstock.core.flight import Flight
from penstock.core.hedge import SLACK, Hedges
from penstock.core.lane import Lane
from penstock.events import Arrived, Cancel, Cancelled, Failed, Finished, FirstToken, Hedge, Tick
from penstock.facts import Failure, Outcome
from penstock.knobs import Knobs

RULES = (Class(name="soon", ttft_ms=2_000),)
SAVED = 100_000.0


def pair(*, saved: float = SAVED, knobs: Knobs | None = None, rules: tuple[Class, ...] = RULES) -> Play:
    core = build("a", "b", rules=rules, knobs=knobs)
    core.second.hedges.spare_tokens = saved
    return Play(core)


def overdue(play: Play, *, stream: bool = True) -> tuple[str, str]:
    """Request 1 waits for its first token in vain until the core acts; its node and the other."""
    play >> Arrived(call(1, stream=stream))
    [action] = play.pending
    node = action.node  # type: ignore[union-attr]
    play.pending.clear()
    while not play.pending and play.core.deadline < inf:
        play.to_deadline() >> Tick()
    return node, "b" if node == "a" else "a"


def hedge(id: int, node: str) -> Hedge:
    return Hedge(id, node)


def balanced(core: Core) -> None:
    for node in core.nodes:
        mine = [f for flight in core.flights.values() for f in (flight, flight.twin) if f is not None and f.node is node]
        assert node.running == len(mine) == len(node.memory.held) and 0 <= node.prefilling <= node.running


def test_an_overdue_request_is_tried_on_the_other_node_while_that_can_still_make_it() -> None:
    play = pair()
    _, other = overdue(play)
    play << hedge(1, other)
    assert 1.0 < play.now < 2.0 - 0.15
    balanced(play.core)
    play.at(2.5) >> Tick() << NOTHING


@pytest.mark.parametrize("second", [True, False])
def test_the_first_to_show_a_token_serves_it_and_the_other_is_stopped(second: bool) -> None:
    play = pair()
    first, other = overdue(play)
    play << hedge(1, other)
    winner, loser = (other, first) if second else (first, other)
    play.at(1.8) >> FirstToken(1, winner) << Cancel(1, loser)
    balanced(play.core)
    assert play.core.flights[1].node is play.core.roster.node(winner)
    play >> Finished(1, node=winner) << NOTHING
    balanced(play.core)
    assert not play.core.flights


@pytest.mark.parametrize("second", [True, False])
def test_the_failure_of_one_leaves_the_other(second: bool) -> None:
    play = pair()
    first, other = overdue(play)
    play << hedge(1, other)
    gone, left = (other, first) if second else (first, other)
    play >> Failed(1, Failure.RESET, node=gone) << NOTHING
    balanced(play.core)
    play >> FirstToken(1, left) << NOTHING >> Finished(1) << NOTHING
    assert not play.core.flights


def test_the_failure_of_both_ends_it() -> None:
    play = pair()
    first, other = overdue(play)
    play << hedge(1, other)
    play >> Failed(1, Failure.RESET, node=first) << NOTHING
    play >> Failed(1, Failure.RESET, node=other) << reject(1, Outcome.FAILED)


def test_a_caller_who_leaves_is_stopped_on_both() -> None:
    play = pair()
    first, other = overdue(play)
    play << hedge(1, other)
    play >> Cancelled(1) << Cancel(1, first) << Cancel(1, other)
    balanced(play.core)


def test_an_answer_that_ends_decides() -> None:
    play = pair()
    first, other = overdue(play)
    play << hedge(1, other)
    play >> Finished(1, node=other) << Cancel(1, first)
    balanced(play.core)
    assert not play.core.flights


def test_a_request_in_time_is_tried_once() -> None:
    play = pair()
    play >> Arrived(call(1))
    play.pending.clear()
    play.at(0.1) >> FirstToken(1) << NOTHING
    while play.core.deadline < inf:
        play.to_deadline() >> Tick() << NOTHING


def test_it_keeps_within_its_share_of_all_work() -> None:
    play = pair(saved=0.0)
    overdue(play)
    play << NOTHING
    rules = (
        Class(
            name="soon",
            ttft_ms=100_000,
        ),
    )
    play = pair(saved=0.0, rules=rules, knobs=Knobs(hedge_share=0.05, depth_s=1e6))
    forwarded = hedged = 0.0
    for id in range(1, 200):
        play.at(play.now + 1.0) >> Arrived(call(id))
        forwarded += 1
        hedged += sum(isinstance(action, Hedge) for action in play.pending)
        play.pending.clear()
        assert hedged <= 0.05 * forwarded
    for _ in range(1_000):
        if play.core.deadline == inf:
            break
        play.to_deadline() >> Tick()
        hedged += sum(isinstance(action, Hedge) for action in play.pending)
        play.pending.clear()
    assert hedged <= 0.05 * forwarded


def test_without_a_deadline_or_another_node_or_a_share_nobody_is_watched() -> None:
    for play in (pair(rules=()), pair(knobs=Knobs(hedge_share=0)), Play(build("a", rules=RULES))):
        play >> Arrived(call(1))
        assert play.core.deadline == inf


def test_nobody_is_hedged_past_those_who_wait() -> None:
    play = pair(knobs=Knobs(depth_s=0), rules=(Class(name="soon", ttft_ms=5_000),))
    play >> Arrived(call(1, tokens=4_000))
    play.pending.clear()
    play >> Arrived(call(2, tokens=4_000))
    play.pending.clear()
    play.core.nodes[0].prefilling = play.core.nodes[1].prefilling = 99
    play >> Arrived(call(3, tokens=1_000)) << NOTHING
    assert play.core.waiting == 1
    while play.core.waiting:
        play.to_deadline() >> Tick()
        assert not any(isinstance(action, Hedge) for action in play.pending)
        play.pending.clear()


def test_an_answer_that_is_not_streamed_is_tried_again_where_its_length_is_known() -> None:
    play = pair(rules=(Class(name="whole", total_ms=20_000),))
    overdue(play, stream=False)
    play << NOTHING
    play = pair(rules=(Class(name="whole", total_ms=20_000),))
    for node in play.core.nodes:
        node.steps.itl_s = 0.01
    first, other = overdue(play, stream=False)
    play << hedge(1, other)
    assert play.now > 256 * 0.01
    play >> FirstToken(1, other) << Cancel(1, first)
    balanced(play.core)
    play >> Finished(1, node=other) << NOTHING


def test_requests_that_have_ended_are_forgotten() -> None:
    hedges, lane = Hedges(), Lane("m", [])
    live = {0: Flight(call(0), DEFAULT, lane, 0.0)}
    for id in range(10 * SLACK):
        hedges.watch(Flight(call(id), DEFAULT, lane, 0.0), float(id), live)
    assert len(hedges.heap) <= SLACK + 8
    assert hedges.next() == 0.0


def test_a_request_on_two_nodes_is_forwarded_to_one_by_forward() -> None:
    play = Play(build("a", rules=RULES))
    play >> Arrived(call(1)) << forward(1, "a") >> FirstToken(1, "a") << NOTHING


def test_nobody_wakes_up_for_a_request_that_has_shown_its_first_byte() -> None:
    play = pair()
    play >> Arrived(call(1, stream=True))
    play.pending.clear()
    assert play.core.deadline < inf
    play >> FirstToken(1)
    assert play.core.deadline == inf and not play.core.second.hedges.heap
