"""Lower classes make way, before anybody has seen anything of them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.playbook import NOTHING, Play, build, call, forward, reject

from penstock.config import Class, Node, Rung, When
from penstock.core import Core
from penstock.core.core import NEXT_STEP
from penstock.events import Arrived, Cancelled, Finished, FirstToken, KnobsSet, NodeSeen, Recall, Tick
from penstock.facts import Outcome, Signals
from penstock.knobs import Knobs

LONG = 40_000
"""Tokens: five seconds at the first guess of a node's rate."""


def rules(**low: Any) -> tuple[Class, ...]:
    return (
        Class(name="high", priority=5, ttft_ms=1_000, when=When(tenant="x")),
        Class(name="middle", priority=3, ttft_ms=60_000, when=When(tenant="y")),
        Class(name="low", **({"priority": 1} | low)),
    )


def one(*, slots: int = 8, knobs: Knobs | None = None, **low: Any) -> Play:
    return Play(build(Node(name="a", url="http://127.0.0.1:9", max_running=slots), rules=rules(**low), knobs=knobs))


def urgent(id: int, **more: Any) -> Arrived:
    return Arrived(call(id, tenant="x", **more))


def balanced(core: Core) -> None:
    for node in core.nodes:
        held = {id for id, flight in core.flights.items() if flight.node is node}
        assert set(node.memory.held) == held and node.running == len(held)


def test_a_long_prompt_is_called_back_for_an_urgent_request_and_goes_on_after_it() -> None:
    play = one()
    play >> Arrived(call(1, tokens=LONG)) << forward(1, "a")
    play.at(0.1) >> urgent(2) << Recall(1, "a") << forward(2, "a")
    balanced(play.core)
    play.at(0.3) >> FirstToken(2) << forward(1, "a")
    balanced(play.core)


def test_a_visible_stream_is_never_cut() -> None:
    play = one(slots=1)
    play >> Arrived(call(1, tokens=LONG)) << forward(1, "a") >> FirstToken(1) << NOTHING
    play >> urgent(2)
    assert not any(isinstance(action, Recall) for action in play.pending)


def test_an_answer_that_is_not_streamed_is_called_back_only_while_its_prompt_is_computed() -> None:
    early = one(slots=1)
    early >> Arrived(call(1, tokens=LONG, stream=False)) << forward(1, "a")
    early.at(0.1) >> urgent(2) << Recall(1, "a") << forward(2, "a")
    late = one(slots=1)
    late >> Arrived(call(1, tokens=LONG, stream=False)) << forward(1, "a")
    late.at(6.0) >> urgent(2)
    assert not any(isinstance(action, Recall) for action in late.pending)


def test_nobody_is_called_back_for_an_equal_or_a_lower_class() -> None:
    play = one()
    play >> urgent(1) << forward(1, "a")
    play >> urgent(2, tokens=7_000)
    assert not any(isinstance(action, Recall) for action in play.pending)


def test_nobody_is_called_back_where_waiting_will_do() -> None:
    play = one()
    play >> Arrived(call(1, tokens=LONG)) << forward(1, "a")
    play >> Arrived(call(2, tenant="y")) << NOTHING


def test_who_waits_and_would_be_late_is_made_way_for_at_the_last_moment() -> None:
    play = one(slots=1)
    play >> Arrived(call(1, stream=False, tokens=LONG)) << forward(1, "a")
    play.core.nodes[0].free_at = 0.0
    play.at(0.01) >> urgent(2)
    if not play.pending:
        while not play.pending:
            play.to_deadline() >> Tick()
    play << Recall(1, "a") << forward(2, "a")
    assert play.now < 1.0


def test_the_lowest_class_makes_way_first_and_the_latest_in_it() -> None:
    play = one(slots=3, knobs=Knobs(depth_s=100))
    play >> Arrived(call(1, tenant="y", tokens=100)) << forward(1, "a")
    play.at(0.001) >> Arrived(call(2, tokens=100)) << forward(2, "a")
    play.at(0.002) >> Arrived(call(3, tokens=100)) << forward(3, "a")
    play.at(0.003) >> urgent(4) << NOTHING
    while not play.pending:
        play.to_deadline() >> Tick()
    play << Recall(3, "a") << forward(4, "a")


def test_as_few_as_possible_are_called_back() -> None:
    core = build("a", "b", rules=rules(), knobs=Knobs(depth_s=100))
    play = Play(core)
    for id in range(1, 7):
        play >> Arrived(call(id, tokens=LONG // 2))
        play.pending.clear()
    play >> urgent(9)
    recalls = [action for action in play.pending if isinstance(action, Recall)]
    assert len(recalls) == 3 and len({action.node for action in recalls}) == 1
    balanced(core)


def test_a_request_is_called_back_only_so_often() -> None:
    play = one(knobs=Knobs(recalls=2))
    play >> Arrived(call(1, tokens=LONG)) << forward(1, "a")
    for id in (2, 3):
        play.at(play.now + 0.1) >> urgent(id) << Recall(1, "a") << forward(id, "a")
        play.at(play.now + 0.1) >> FirstToken(id) << forward(1, "a")
    play.at(play.now + 0.1) >> urgent(4) << reject(4, Outcome.REFUSED_DEADLINE)


def test_it_can_be_turned_off() -> None:
    play = one(knobs=Knobs(preempt=0))
    play >> Arrived(call(1, tokens=LONG)) << forward(1, "a")
    play.at(0.1) >> urgent(2) << reject(2, Outcome.REFUSED_DEADLINE)


def test_who_may_not_wait_is_not_called_back() -> None:
    play = one(ladder=(Rung.REJECT,))
    play >> Arrived(call(1, tokens=LONG)) << forward(1, "a")
    play.at(0.1) >> urgent(2) << reject(2, Outcome.REFUSED_DEADLINE)


def test_a_crowd_of_urgent_requests_counts_on_what_can_be_called_back() -> None:
    play = one(knobs=Knobs(depth_s=0.2))
    play >> Arrived(call(1, tokens=LONG)) << forward(1, "a")
    admitted = 0
    for id in range(2, 12):
        play.at(0.1) >> urgent(id)
        admitted += not any(action == reject(id, Outcome.REFUSED_DEADLINE) or type(action).__name__ == "Reject" for action in play.pending)
        play.pending.clear()
    assert 4 <= admitted <= 8
    balanced(play.core)


def test_a_called_back_request_keeps_its_place() -> None:
    play = one()
    play >> Arrived(call(1, tokens=LONG)) << forward(1, "a")
    play.at(0.05) >> Arrived(call(3)) << NOTHING
    play.at(0.1) >> urgent(2) << Recall(1, "a") << forward(2, "a")
    assert play.core.place(1, 0.1) is not None
    play.at(0.3) >> FirstToken(2) << forward(1, "a")


def test_a_called_back_request_can_be_cancelled() -> None:
    play = one()
    play >> Arrived(call(1, tokens=LONG)) << forward(1, "a")
    play.at(0.1) >> urgent(2) << Recall(1, "a") << forward(2, "a")
    play >> Cancelled(1) << NOTHING
    assert not play.core.waiting


@pytest.mark.parametrize("sent_on", [False, True])
def test_a_call_back_that_came_too_late_leaves_the_answer_where_it_began(sent_on: bool) -> None:
    play = one()
    play >> Arrived(call(1, tokens=LONG)) << forward(1, "a")
    play.at(0.1) >> urgent(2) << Recall(1, "a") << forward(2, "a")
    if sent_on:
        play.at(0.2) >> FirstToken(2) << forward(1, "a")
    play.at(0.3) >> FirstToken(1, "a") << NOTHING
    balanced(play.core)
    assert play.core.flights[1].first == 0.3 and not play.core.waiting
    play >> Finished(1) << NOTHING


def test_a_token_from_a_node_that_is_gone_changes_nothing() -> None:
    play = one()
    play >> Arrived(call(1, tokens=LONG)) << forward(1, "a")
    play.at(0.1) >> urgent(2) << Recall(1, "a") << forward(2, "a")
    play >> FirstToken(1, "nowhere") << NOTHING >> NodeSeen("a", Signals()) << NOTHING
    assert play.core.waiting == 1


def test_what_a_floor_is_owed_is_not_called_back() -> None:
    play = one(floor=0.5, knobs=Knobs(depth_s=100))
    play >> urgent(1, tokens=100) << forward(1, "a")
    play >> Arrived(call(2, tokens=LONG)) << forward(2, "a")
    play.core.flights[2].owed = True
    play >> urgent(3)
    assert not any(isinstance(action, Recall) for action in play.pending)


def test_what_would_be_in_time_only_if_first_tokens_are_is_made_way_for_at_once() -> None:
    play = one(knobs=Knobs(depth_s=100))
    play >> Arrived(call(1, tokens=5_000)) << forward(1, "a")
    node = play.core.nodes[0]
    for _ in range(100):
        node.slipped(0.3)
    play >> urgent(2, tokens=100) << Recall(1, "a") << forward(2, "a")
    balanced(play.core)


def test_where_first_tokens_are_late_a_node_is_chosen_that_is_in_time_all_the_same() -> None:
    core = build("a", "b", rules=rules(), knobs=Knobs(depth_s=100))
    play = Play(core)
    play >> Arrived(call(1, tokens=800))
    busy = core.flights[1].node
    play.pending.clear()
    assert busy is not None
    other = next(node for node in core.nodes if node is not busy)
    for _ in range(100):
        other.slipped(2.0)
    play >> urgent(2, tokens=100) << forward(2, busy.name)


def test_nodes_are_given_less_ahead_once_something_urgent_came() -> None:
    play = one(knobs=Knobs(depth_s=100))
    assert play.core.depth_s == 100
    play >> Arrived(call(1)) << forward(1, "a") >> urgent(2)
    play.pending.clear()
    assert play.core.depth_s == NEXT_STEP * 1.0
    play >> KnobsSet(Knobs(depth_s=0.01)) << NOTHING
    assert play.core.depth_s == 0.01
