"""The core's conversations with its driver."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from tests.playbook import NOTHING, Play, build, call, forward, reject

from penstock.config import Class, Config, Node, Pool, When
from penstock.core.members import ANY
from penstock.events import (
    Arrived,
    Cancel,
    Cancelled,
    ConfigReplaced,
    Failed,
    Finished,
    FirstToken,
    Forward,
    KnobsSet,
    NodeDraining,
    NodeLost,
    NodeSeen,
    Progress,
    Tick,
)
from penstock.facts import Failure, Outcome, Signals
from penstock.knobs import Knobs

TIGHT = (Class(name="tight", ttft_ms=1_000),)


def one_slot(name: str = "a") -> Node:
    return Node(name=name, url="http://127.0.0.1:9", max_running=1)


def test_request_is_forwarded_to_the_only_node() -> None:
    Play(build("a")) >> Arrived(call(1)) << forward(1, "a") >> Finished(1) << NOTHING


def test_request_waits_while_the_node_is_full_and_goes_when_it_is_free() -> None:
    play = Play(build(one_slot()))
    play >> Arrived(call(1)) << forward(1, "a")
    play >> Arrived(call(2)) << NOTHING
    play.at(1.0) >> Finished(1) << forward(2, "a")


def test_earlier_deadline_goes_first() -> None:
    rules = (Class(name="soon", ttft_ms=5_000, when=When(tenant="x")), Class(name="later", ttft_ms=50_000))
    play = Play(build(one_slot(), rules=rules))
    play >> Arrived(call(1)) << forward(1, "a")
    play >> Arrived(call(2)) << NOTHING
    play >> Arrived(call(3, tenant="x")) << NOTHING
    play.at(0.5) >> Finished(1) << forward(3, "a")


def test_higher_priority_goes_before_an_earlier_deadline() -> None:
    rules = (Class(name="high", priority=5, when=When(tenant="x")), Class(name="low", priority=1, ttft_ms=5_000))
    play = Play(build(one_slot(), rules=rules))
    play >> Arrived(call(1)) << forward(1, "a")
    play >> Arrived(call(2)) << NOTHING
    play >> Arrived(call(3, tenant="x")) << NOTHING
    play.at(0.5) >> Finished(1) << forward(3, "a")


def test_request_that_no_node_can_serve_in_time_is_refused_at_once() -> None:
    Play(build("a", rules=TIGHT)) >> Arrived(call(1, tokens=100_000)) << reject(1, Outcome.REFUSED_DEADLINE)


def test_same_request_is_served_without_a_deadline() -> None:
    Play(build("a")) >> Arrived(call(1, tokens=100_000)) << forward(1, "a")


def test_expired_request_is_rejected_once() -> None:
    play = Play(build(one_slot(), rules=TIGHT))
    play >> Arrived(call(1)) << forward(1, "a")
    play >> Arrived(call(2)) << NOTHING
    play.to_deadline() >> Tick()
    while not play.pending:
        play.to_deadline() >> Tick()
    play << reject(2, Outcome.EXPIRED)
    play.at(5.0) >> Tick() << NOTHING >> Finished(1) << NOTHING


def test_full_queue_refuses() -> None:
    play = Play(build(one_slot(), knobs=Knobs(queue_max=1)))
    play >> Arrived(call(1)) << forward(1, "a")
    play >> Arrived(call(2)) << NOTHING
    play >> Arrived(call(3)) << reject(3, Outcome.REFUSED_FULL)


def test_promise_to_a_waiting_request_is_kept_before_a_new_one_is_admitted() -> None:
    rules = (Class(name="soon", ttft_ms=3_000, when=When(tenant="x")), Class(name="later", ttft_ms=4_000))
    core = build("a", rules=rules)
    play = Play(core)
    play >> Arrived(call(1, tokens=16_000)) << forward(1, "a")
    play >> Arrived(call(2, tokens=12_000)) << NOTHING
    play >> Arrived(call(3, tokens=8_000, tenant="x")) << reject(3, Outcome.REFUSED_DEADLINE)


def test_no_node_for_a_model_refuses_and_says_so() -> None:
    core = build(Node(name="a", url="http://127.0.0.1:9", models=("other",)))
    assert not core.serves("m") and core.serves("other") and core.models() == ["other"]
    Play(core) >> Arrived(call(1)) << reject(1, Outcome.UNAVAILABLE)


def test_request_for_lost_nodes_waits_a_little_for_one_to_come_back() -> None:
    play = Play(build("a"))
    play >> NodeLost("a") << NOTHING
    assert not play.core.ready()
    play >> Arrived(call(1)) << NOTHING
    play.at(1.0) >> NodeSeen("a", Signals()) << forward(1, "a")


def test_request_for_lost_nodes_is_refused_when_none_comes_back() -> None:
    play = Play(build("a"))
    play >> NodeLost("a") << NOTHING >> Arrived(call(1)) << NOTHING
    play.to_deadline() >> Tick() << reject(1, Outcome.UNAVAILABLE)
    assert play.now == pytest.approx(5.0)
    assert play.core.deadline == inf


def test_draining_node_gets_no_new_work() -> None:
    play = Play(build("a", "b"))
    play >> NodeDraining("a") << NOTHING
    for id in range(5):
        play >> Arrived(call(id)) << forward(id, "b")
        play >> Finished(id) << NOTHING


def test_failed_request_is_tried_on_another_node() -> None:
    play = Play(build("a", "b"))
    play >> Arrived(call(1))
    first = play.pending.pop()
    assert isinstance(first, Forward)
    other = "b" if first.node == "a" else "a"
    play >> Failed(1, Failure.CONNECT) << forward(1, other)
    play >> Failed(1, Failure.CONNECT) << reject(1, Outcome.FAILED)


def test_started_answer_is_not_tried_again() -> None:
    play = Play(build("a", "b"))
    play >> Arrived(call(1))
    play.pending.clear()
    play >> FirstToken(1) << NOTHING >> Failed(1, Failure.RESET, started=True) << reject(1, Outcome.FAILED)


def test_busy_node_is_tried_again_after_a_pause() -> None:
    play = Play(build("a"))
    play >> Arrived(call(1)) << forward(1, "a")
    play >> Failed(1, Failure.BUSY) << NOTHING
    play.to_deadline() >> Tick() << forward(1, "a")
    assert 0.05 < play.now < 0.5


def test_retries_stay_within_their_budget() -> None:
    core = build("a", "b", knobs=Knobs(retry_share=0.1, breaker_failures=1_000))
    retried = 0
    for id in range(200):
        core.handle(Arrived(call(id)), float(id))
        retried += any(isinstance(action, Forward) for action in core.handle(Failed(id, Failure.RESET), float(id)))
        if id in core.flights:
            core.handle(Finished(id), float(id))
    assert 20 <= retried <= 10 + 0.1 * 200 + 1


def test_cancelled_request_frees_its_slot_and_its_node_is_told() -> None:
    play = Play(build(one_slot()))
    play >> Arrived(call(1)) << forward(1, "a") >> Arrived(call(2)) << NOTHING
    play >> Cancelled(1) << Cancel(1, "a") << forward(2, "a")


def test_cancelled_waiting_request_is_forgotten() -> None:
    play = Play(build(one_slot()))
    play >> Arrived(call(1)) << forward(1, "a") >> Arrived(call(2)) << NOTHING
    play >> Cancelled(2) << NOTHING >> Finished(1) << NOTHING
    assert play.core.waiting == 0 and not play.core.flights


def test_events_of_unknown_requests_and_nodes_change_nothing() -> None:
    play = Play(build("a"))
    for event in (FirstToken(9), Finished(9), Failed(9, Failure.RESET), Cancelled(9), NodeLost("z"), NodeDraining("z")):
        play >> event << NOTHING
    play >> NodeSeen("z", Signals()) << NOTHING >> Progress("z", 1, 1.0) << NOTHING


def test_position_and_eta_are_told_of_waiting_requests_alone() -> None:
    play = Play(build(one_slot()))
    play >> Arrived(call(1)) << forward(1, "a")
    for id in (2, 3):
        play >> Arrived(call(id)) << NOTHING
    assert play.core.place(1, 0.0) is None and play.core.place(99, 0.0) is None
    place = play.core.place(3, 0.0)
    assert place is not None and place[0] == 2 and place[1] > 0


def test_nodes_that_tell_their_models_get_lanes_and_waiting_requests_move() -> None:
    play = Play(build(one_slot("a"), "b"))
    play >> NodeLost("b") << NOTHING >> Arrived(call(1, model="x")) << forward(1, "a")
    play >> Arrived(call(2, model="x")) << NOTHING
    play >> Arrived(call(3, model="y")) << NOTHING
    play >> NodeSeen("a", Signals(models=("x",))) << NOTHING
    play >> NodeSeen("b", Signals(models=("x",)))
    outcomes = {action.id: action for action in play.pending}
    assert outcomes[2] == forward(2, "b") or isinstance(outcomes[2], Forward)
    assert same_outcome(outcomes[3], Outcome.UNAVAILABLE)


def same_outcome(action: object, outcome: Outcome) -> bool:
    return getattr(action, "outcome", None) is outcome


def test_pool_keeps_its_models_to_its_nodes() -> None:
    core = build("a", "b", pools=(Pool(name="big", nodes=("b",), models=("m",)),))
    play = Play(core)
    for id in range(6):
        play >> Arrived(call(id)) << forward(id, "b") >> Finished(id) << NOTHING


def test_replaced_config_keeps_what_flows_and_adds_nodes() -> None:
    play = Play(build(one_slot("a")))
    play >> Arrived(call(1)) << forward(1, "a") >> Arrived(call(2)) << NOTHING
    play >> ConfigReplaced(Config(nodes=(one_slot("a"), one_slot("b")))) << forward(2, "b")
    play >> Finished(1) << NOTHING >> Arrived(call(3)) << forward(3, "a")


def test_knobs_take_effect_at_once() -> None:
    play = Play(build(one_slot()))
    play >> Arrived(call(1)) << forward(1, "a") >> KnobsSet(Knobs(queue_max=1)) << NOTHING
    play >> Arrived(call(2)) << NOTHING >> Arrived(call(3)) << reject(3, Outcome.REFUSED_FULL)


def test_open_breaker_sends_work_elsewhere_and_lets_one_try_after_its_time() -> None:
    core = build("a", "b", knobs=Knobs(breaker_failures=1, breaker_open_s=10.0, retry_share=1.0))
    play = Play(core)
    play >> Arrived(call(1))
    failing = play.pending.pop().node  # type: ignore[union-attr]
    healthy = "b" if failing == "a" else "a"
    play >> Failed(1, Failure.RESET) << forward(1, healthy) >> Finished(1) << NOTHING
    for id in range(2, 8):
        play >> Arrived(call(id)) << forward(id, healthy) >> Finished(id) << NOTHING
    assert {node.name: node.breaker for node in core.snapshot(0.0).nodes}[failing] == "open"
    core.handle(NodeDraining(healthy), play.now)
    play.at(11.0) >> Arrived(call(9)) << forward(9, failing) >> Arrived(call(10)) << NOTHING
    play >> Finished(9) << forward(10, failing) >> Finished(10) << NOTHING
    assert {node.name: node.breaker for node in core.snapshot(0.0).nodes}[failing] == "closed"


def test_total_deadline_allows_for_the_time_the_answer_takes() -> None:
    core = build(Node(name="a", url="http://127.0.0.1:9", max_running=8), rules=(Class(name="whole", total_ms=2_000),))
    now = 0.0
    for id in range(60):
        core.handle(Arrived(call(id, tokens=10)), now)
        core.handle(FirstToken(id), now + 0.02)
        now += 1.0
        core.handle(Progress("a", 90, 0.9), now)
        core.handle(Finished(id, output_tokens=100), now)
    core.handle(Arrived(call(99, tokens=10)), now)
    assert core.flights[99].due == pytest.approx(now + 2.0 - 1.0, abs=0.1)


def test_snapshot_counts_what_waits_and_runs() -> None:
    play = Play(build(one_slot()))
    play >> Arrived(call(1)) << forward(1, "a") >> Arrived(call(2)) << NOTHING
    seen = play.core.snapshot(3.0)
    assert [node.running for node in seen.nodes] == [1]
    assert [(lane.model, lane.waiting, lane.oldest_s, lane.classes) for lane in seen.lanes] == [("*", 1, 3.0, {"default": 1})]
    assert seen.knobs["queue_max"] == 5_000


# --- what the key and the class allow


def test_a_keys_cap_holds_for_every_rule_and_for_a_class_that_was_asked_for() -> None:
    rules = (Class(name="high", priority=5, when=When(metadata={"urgent": "yes"})), Class(name="low", priority=2))
    for facts in ({"metadata": {"urgent": "yes"}}, {"task": "high"}):
        play = Play(build(one_slot(), rules=rules))
        play >> Arrived(call(1)) << forward(1, "a")
        play >> Arrived(call(2)) << NOTHING
        play >> Arrived(call(3, max_priority=1, **facts)) << NOTHING
        play >> Arrived(call(4, max_priority=3, **facts)) << NOTHING
        assert [play.core.task_class(id) for id in (2, 3, 4)] == ["low", "high", "high"]
        play >> Finished(1) << forward(4, "a")
        play >> Finished(4) << forward(2, "a")
        play >> Finished(2) << forward(3, "a")


def test_a_cap_above_the_class_changes_nothing() -> None:
    play = Play(build("a", rules=(Class(name="x", priority=2),)))
    play >> Arrived(call(1, max_priority=4)) << forward(1, "a")
    assert play.core.flights[1].priority == 2


@pytest.mark.parametrize(
    ("rule", "facts"),
    [(Class(name="x", timeout="none"), {}), (Class(name="x", ttft_ms=1, total_ms=5), {"patient": True})],
    ids=["class", "job"],
)
def test_a_patient_request_is_never_refused_for_time(rule: Class, facts: dict[str, Any]) -> None:
    play = Play(build(one_slot(), rules=(rule,), knobs=Knobs(queue_ttl_s=1.0)))
    play >> Arrived(call(1, **facts)) << forward(1, "a")
    play >> Arrived(call(2, tokens=1_000_000, **facts)) << NOTHING
    play.at(100_000.0) >> Tick() << NOTHING
    play >> Finished(1) << forward(2, "a")


def test_a_patient_request_waits_for_a_node_to_come_back() -> None:
    play = Play(build("a", rules=(Class(name="x", timeout="none"),)))
    play >> NodeLost("a") << NOTHING
    play >> Arrived(call(1)) << NOTHING
    play.at(50_000.0) >> Tick() << NOTHING
    play >> NodeSeen("a", Signals()) << forward(1, "a")


def test_a_patient_request_is_still_refused_when_the_queue_is_full() -> None:
    play = Play(build(one_slot(), rules=(Class(name="x", timeout="none"),), knobs=Knobs(queue_max=1)))
    play >> Arrived(call(1)) << forward(1, "a")
    play >> Arrived(call(2)) << NOTHING
    play >> Arrived(call(3)) << reject(3, Outcome.REFUSED_FULL)


def test_what_was_learned_of_answers_outlives_a_new_configuration() -> None:
    core = build("a", rules=(Class(name="whole", total_ms=9_000),))
    for id in range(40):
        core.handle(Arrived(call(id, stream=False)), float(id))
        core.handle(Finished(id), id + 0.5)
    before = dict(core.answers.known)
    core.handle(ConfigReplaced(core.config), 50.0)
    assert before and core.admission.answers.known == before


def test_queue_that_empties_by_a_cancellation_is_not_taken_to_drain_slowly() -> None:
    core = build(Node(name="a", url="http://127.0.0.1:9", max_running=1))
    for id in (1, 2):
        core.handle(Arrived(call(id)), 0.0)
    core.handle(Cancelled(2), 1.0)
    drain = core.lanes[ANY].drain
    drain.departed(core.flights[1], True, 100.0)
    assert drain.rate == 0.0 or drain.rate > 0.3


def test_only_who_says_that_it_came_before_has_a_claim_to_what_was_promised() -> None:
    for retry, claims in ((-1, False), (0, False), (1, True)):
        play = Play(build(Node(name="a", url="http://127.0.0.1:9", max_running=1), knobs=Knobs(queue_max=1)))
        play >> Arrived(call(1)) << forward(1, "a") >> Arrived(call(2)) << NOTHING
        play >> Arrived(call(3)) << reject(3, Outcome.REFUSED_FULL)
        lane = play.core.lanes["*"]
        play.at(play.now + next(iter(lane.returns.every.bins)) * 0.25 + 0.25) >> Finished(1, output_tokens=1)
        play.pending.clear()
        play >> Arrived(call(4, retry=retry))
        assert play.core.flights[4].returns is claims, retry
