"""What becomes of a request that waiting does not serve."""

from __future__ import annotations

from typing import Any

import pytest
from tests.playbook import NOTHING, Play, build, call, divert, forward, reject

from penstock.config import Class, Config, Node, Policy, Rung, When
from penstock.core import Core
from penstock.core.ladder import Ladders, compiled, named
from penstock.events import Arrived, Cancelled, ConfigReplaced, Failed, Finished, Forward, NodeLost, Tick
from penstock.facts import Failure, Outcome
from penstock.knobs import Knobs

HUGE = 100_000


def node(name: str, model: str, **more: Any) -> Node:
    return Node(name=name, url="http://127.0.0.1:9", models=(model,), **more)


def fleet(*ladder: str, **more: Any) -> Core:
    """One node for the model `m`, one for the smaller `s`, each with one slot."""
    rules = (Class(name="tight", ttft_ms=1_000, ladder=tuple(map(Rung, ladder))),)
    nodes = node("a", "m", max_running=1), node("b", "s", max_running=1)
    return build(*nodes, rules=rules, smaller={"m": "s"}, **more)


def smaller(id: int, *rungs: str) -> Forward:
    return Forward(id, "b", model="s", rungs=rungs)


# --- the order of trying


def test_what_may_wait_waits_and_its_wait_is_named() -> None:
    play = Play(fleet("wait", "smaller"))
    play >> Arrived(call(1)) << Forward(1, "a") >> Arrived(call(2)) << NOTHING
    play.at(0.2) >> Finished(1) << Forward(2, "a", rungs=("wait",))


def test_served_at_once_names_no_rung() -> None:
    play = Play(fleet("wait", "smaller"))
    play >> Arrived(call(1))
    [action] = play.pending
    assert isinstance(action, Forward)
    assert action.rungs == () and action.model == ""


def test_who_cannot_be_served_in_time_gets_the_smaller_model_at_once() -> None:
    core = fleet("wait", "smaller")
    core.nodes[1].token_s = 1e-6
    Play(core) >> Arrived(call(1, tokens=HUGE)) << smaller(1, "smaller")


def test_who_waited_in_vain_gets_the_smaller_model_while_there_is_time_for_it() -> None:
    play = Play(fleet("wait", "smaller"))
    play >> Arrived(call(1)) << forward(1, "a") >> Arrived(call(2)) << NOTHING
    while not play.pending:
        play.to_deadline() >> Tick()
    play << smaller(2, "wait", "smaller")
    assert 0.5 < play.now < 0.8


def test_who_waits_for_the_smaller_model_is_no_longer_given_to_the_nodes_it_waited_for_before() -> None:
    rules = (
        Class(name="calm", ttft_ms=60_000, when=When(stream=False)),
        Class(name="tight", ttft_ms=1_000, ladder=(Rung.WAIT, Rung.SMALLER)),
    )
    core = build(node("a", "m", max_running=1), node("b", "s", max_running=1), rules=rules, smaller={"m": "s"}, policy=Policy(order="fcfs"))
    big, small = core.lanes["m"].queue, core.lanes["s"].queue
    play = Play(core)
    play >> Arrived(call(1)) << forward(1, "a") >> Arrived(call(2, model="s")) << forward(2, "b")
    play >> Arrived(call(3, stream=False)) << NOTHING >> Arrived(call(4)) << NOTHING
    while not small.size:
        play.to_deadline() >> Tick() << NOTHING
    play >> Arrived(call(5, stream=False)) << NOTHING
    play >> Finished(1) << forward(3, "a") >> Finished(3) << forward(5, "a")
    assert (big.size, small.size, core.waiting) == (0, 1, 1)
    play >> Finished(2) << smaller(4, "wait", "smaller")
    assert (big.size, small.size, core.waiting) == (0, 0, 0)


def test_before_wait_the_smaller_model_is_tried_before_the_queue() -> None:
    play = Play(fleet("smaller", "wait"))
    play >> Arrived(call(1)) << forward(1, "a")
    play >> Arrived(call(2)) << smaller(2, "smaller")
    play >> Arrived(call(3)) << NOTHING
    play.at(0.2) >> Finished(2) << NOTHING
    play >> Finished(1) << Forward(3, "a", rungs=("wait",))


def test_after_wait_it_waits_for_the_smaller_model_too() -> None:
    core = fleet("wait", "smaller", knobs=Knobs(queue_max=1))
    play = Play(core)
    play >> Arrived(call(1)) << forward(1, "a") >> Arrived(call(2)) << NOTHING
    play >> Arrived(call(3)) << smaller(3, "smaller")
    play >> Arrived(call(4)) << NOTHING
    play.at(0.1) >> Finished(3) << smaller(4, "smaller", "wait")


def test_without_wait_a_request_that_cannot_start_goes_on() -> None:
    play = Play(fleet("smaller", "ticket"))
    play >> Arrived(call(1, ticket=True)) << forward(1, "a")
    play >> Arrived(call(2, ticket=True)) << smaller(2, "smaller")
    play >> Arrived(call(3, ticket=True)) << divert(3, "ticket")
    play >> Arrived(call(4)) << reject(4, Outcome.REFUSED_FULL)


def test_a_ladder_of_reject_alone_serves_what_can_start_and_nothing_else() -> None:
    play = Play(fleet("reject"))
    play >> Arrived(call(1)) << forward(1, "a") >> Arrived(call(2)) << reject(2, Outcome.REFUSED_FULL)


def test_a_ticket_is_given_to_who_is_refused_and_to_who_expires() -> None:
    play = Play(fleet("wait", "ticket"))
    play >> Arrived(call(1, tokens=HUGE, ticket=True)) << divert(1, "ticket")
    play >> Arrived(call(2)) << forward(2, "a") >> Arrived(call(3, ticket=True)) << NOTHING
    while not play.pending:
        play.to_deadline() >> Tick()
    play << divert(3, "wait", "ticket")


def test_the_outcome_of_the_model_asked_for_is_the_one_told() -> None:
    play = Play(fleet("wait", "smaller"))
    play >> Arrived(call(1, tokens=HUGE)) << reject(1, Outcome.REFUSED_DEADLINE)
    assert not play.core.waiting and not play.core.flights


def test_a_refusal_by_the_smaller_model_leaves_a_place_in_the_queue_of_the_one_asked_for() -> None:
    play = Play(fleet("smaller", "wait"))
    play >> Arrived(call(1)) << forward(1, "a") >> Arrived(call(2)) << smaller(2, "smaller")
    play >> Arrived(call(3)) << NOTHING
    assert play.core.lanes["m"].queue.size == 1 and not play.core.lanes["s"].queue.size


# --- the cache


@pytest.mark.parametrize("ladder", [("cache", "wait"), ("smaller", "cache", "wait"), ("cache",)])
def test_before_wait_a_kept_answer_is_given_before_anything_is_started(ladder: tuple[str, ...]) -> None:
    Play(fleet(*ladder)) >> Arrived(call(1, cached=True)) << divert(1, "cache")


def test_after_wait_a_kept_answer_is_for_those_who_are_refused() -> None:
    play = Play(fleet("wait", "cache"))
    play >> Arrived(call(1, cached=True)) << forward(1, "a")
    play >> Arrived(call(2, cached=True, tokens=HUGE)) << divert(2, "cache")
    assert set(play.core.flights) == {1}


def test_without_a_kept_answer_the_rung_is_passed() -> None:
    Play(fleet("cache", "wait")) >> Arrived(call(1)) << forward(1, "a")


def test_a_class_that_does_not_name_the_cache_has_none() -> None:
    Play(fleet("wait")) >> Arrived(call(1, cached=True)) << forward(1, "a")


# --- failures and lost nodes


def test_who_failed_everywhere_goes_on_along_its_ladder() -> None:
    play = Play(fleet("wait", "smaller", "ticket"))
    play >> Arrived(call(1, ticket=True)) << forward(1, "a")
    play >> Failed(1, Failure.RESET) << smaller(1, "smaller")
    play >> Failed(1, Failure.RESET) << divert(1, "smaller", "ticket")


def test_a_started_answer_has_no_way_on() -> None:
    play = Play(fleet("wait", "ticket"))
    play >> Arrived(call(1, ticket=True)) << forward(1, "a")
    play >> Failed(1, Failure.RESET, started=True) << reject(1, Outcome.FAILED)


def test_who_may_not_wait_is_retried_at_once_or_goes_on() -> None:
    rules = (Class(name="now", ladder=(Rung.TICKET,)),)
    play = Play(build("a", "b", rules=rules))
    play >> Arrived(call(1, ticket=True))
    [first] = play.pending
    assert isinstance(first, Forward)
    play.pending.clear()
    play >> Failed(1, Failure.RESET) << forward(1, "b" if first.node == "a" else "a")
    play >> Failed(1, Failure.RESET) << divert(1, "ticket")


def test_without_a_node_it_waits_a_little_and_goes_on() -> None:
    play = Play(fleet("wait", "smaller"))
    play >> NodeLost("a") << NOTHING >> Arrived(call(1)) << NOTHING
    play.to_deadline() >> Tick() << smaller(1, "wait", "smaller")


def test_a_lane_that_is_gone_sends_its_requests_on() -> None:
    core = fleet("wait", "ticket")
    play = Play(core)
    play >> Arrived(call(1, ticket=True)) << forward(1, "a") >> Arrived(call(2, ticket=True)) << NOTHING
    play.at(0.5) >> ConfigReplaced(Config(nodes=(node("b", "s"),), classes=core.config.classes)) << divert(2, "wait", "ticket")


def test_a_request_that_moved_can_be_cancelled_where_it_waits() -> None:
    play = Play(fleet("wait", "smaller", knobs=Knobs(queue_max=1)))
    play >> Arrived(call(1)) << forward(1, "a") >> Arrived(call(2)) << NOTHING
    play >> Arrived(call(3)) << smaller(3, "smaller") >> Arrived(call(4)) << NOTHING
    play >> Cancelled(4) << NOTHING
    assert play.core.waiting == 1 and not play.core.lanes["s"].queue.size


def test_a_job_waits_whatever_its_class_says() -> None:
    play = Play(fleet("smaller", "ticket"))
    play >> Arrived(call(1)) << forward(1, "a") >> Arrived(call(2, patient=True, ticket=True)) << NOTHING
    play.at(100.0) >> Finished(1) << Forward(2, "a", rungs=("wait",))


# --- what callers and classes may say


def test_a_caller_may_shorten_the_ladder() -> None:
    play = Play(fleet("wait", "smaller", "ticket"))
    play >> Arrived(call(1, tokens=HUGE, ticket=True, ladder=("wait",))) << reject(1, Outcome.REFUSED_DEADLINE)
    play >> Arrived(call(2)) << forward(2, "a")
    play >> Arrived(call(3, ladder=())) << reject(3, Outcome.REFUSED_FULL)
    assert not play.core.waiting


def test_a_caller_cannot_add_to_it_nor_change_its_order() -> None:
    play = Play(fleet("wait", "smaller"))
    play >> Arrived(call(1, tokens=HUGE, ticket=True, ladder=("ticket", "smaller", "wait"))) << reject(1, Outcome.REFUSED_DEADLINE)
    play >> Arrived(call(2)) << forward(2, "a") >> Arrived(call(3, ladder=("smaller", "wait"))) << NOTHING


def test_each_class_has_its_ladder_and_the_rest_the_usual_one() -> None:
    config = Config(classes=(Class(name="x", when=When(tenant="x"), ladder=(Rung.CACHE, Rung.REJECT)),), ladder=(Rung.WAIT, Rung.TICKET))
    ladders = Ladders(config)
    assert ladders.of(call(1), "x").names == ("cache",)
    assert ladders.of(call(1), "default").names == ("wait", "ticket")
    assert ladders.of(call(1, ladder=("ticket",)), "default").names == ("ticket",)
    assert named(config) == {"cache", "reject", "wait", "ticket"}


def test_what_stands_behind_reject_is_not_there() -> None:
    assert compiled(("wait", "reject", "ticket")).names == ("wait",)


def test_the_core_tells_whether_a_ladder_has_a_rung() -> None:
    core = fleet("wait", "cache")
    Play(core) >> Arrived(call(1)) << forward(1, "a")
    assert core.allows(1, "cache") and not core.allows(1, "ticket") and not core.allows(2, "cache")
