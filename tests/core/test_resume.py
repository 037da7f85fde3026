"""Streams that broke off: the rest is asked of another node."""

from __future__ import annotations

from tests.playbook import NOTHING, Play, build, call, forward, reject

from penstock.config import Class, Node, OnLoss, Policy
from penstock.core import Core
from penstock.core.resume import GAP_S
from penstock.events import Arrived, Cancelled, Failed, Finished, FirstToken, NodeLost, NodeSeen, Tick
from penstock.facts import Failure, Form, Outcome, Signals

CAN = Signals(continues=(Form.CHAT,))


def lost(id: int, tokens: int = 5, failure: Failure = Failure.RESET, form: Form | None = Form.CHAT) -> Failed:
    return Failed(id, failure, True, form=form, emitted_tokens=tokens)


def able(core: Core, *names: str, signals: Signals = CAN) -> Play:
    play = Play(core)
    for name in names:
        play >> NodeSeen(name, signals) << NOTHING
    return play


def on_a(core: Core, *others: str, max_tokens: int = 0) -> Play:
    """A request that streams from the node `a`; nodes named in `others` can go on with it."""
    play = able(core, "a")
    for node in core.nodes[1:]:
        node.state = "lost"
        node.watch()
    play >> Arrived(call(1, max_tokens=max_tokens)) << forward(1, "a")
    for node in core.nodes[1:]:
        node.state = "up"
        node.watch()
    for name in others:
        play >> NodeSeen(name, CAN) << NOTHING
    play.at(0.5) >> FirstToken(1) << NOTHING
    return play.at(1.0)


def test_the_rest_is_asked_of_another_node_with_what_is_there_as_prompt() -> None:
    core = build("a", "b")
    play = on_a(core, "b", max_tokens=50)
    play >> lost(1, 20) << forward(1, "b") << NOTHING
    flight = core.flights[1]
    assert (flight.request.prompt_tokens, flight.request.max_tokens) == (1_020, 30)
    play.at(1.5) >> FirstToken(1) << NOTHING
    play.at(2.0) >> Finished(1, 200, 1_000, 0, 45) << NOTHING
    assert not core.flights and [node.running for node in core.nodes] == [0, 0]
    assert core.lengths.find(("*", "default", "")).mean == 44


def test_only_nodes_that_can_go_on_are_asked() -> None:
    core = build("a", "b", "c")
    on_a(core, "c") >> lost(1) << forward(1, "c") << NOTHING


def test_where_no_node_can_it_fails_at_once() -> None:
    on_a(build("a", "b")) >> lost(1) << reject(1, Outcome.FAILED) << NOTHING
    on_a(build("a")) >> lost(1) << reject(1, Outcome.FAILED) << NOTHING
    on_a(build("a", "b"), "b") >> lost(1, form=Form.THOUGHTS) << reject(1, Outcome.FAILED) << NOTHING


def test_what_cannot_be_exact_fails() -> None:
    on_a(build("a", "b"), "b") >> lost(1, form=None) << reject(1, Outcome.FAILED) << NOTHING


def test_a_class_may_say_that_its_streams_end() -> None:
    core = build("a", "b", rules=(Class(name="x", on_loss=OnLoss.FAIL),))
    on_a(core, "b") >> lost(1) << reject(1, Outcome.FAILED) << NOTHING


def test_it_waits_before_all_others() -> None:
    busy = Node(name="b", url="http://127.0.0.1:9", max_running=1)
    core = build("a", busy)
    play = on_two(core, able(core, "a", "b"))
    play.at(1.0) >> Arrived(call(3)) << NOTHING
    play >> NodeLost("a") << NOTHING
    play.at(1.1) >> lost(1) << NOTHING
    play.at(1.2) >> Finished(2, 200, 10, 0, 5) << forward(1, "b") << NOTHING
    assert core.waiting == 1


def on_two(core: Core, play: Play) -> Play:
    """Requests 1 and 2 stream from nodes `a` and `b`; `a` is full then, too."""
    core.nodes[1].state = "lost"
    core.nodes[1].watch()
    play >> Arrived(call(1)) << forward(1, "a")
    core.nodes[0].limit = 1.0
    core.nodes[1].state = "up"
    core.nodes[1].watch()
    play >> Arrived(call(2)) << forward(2, "b")
    play >> FirstToken(1) << NOTHING
    play >> FirstToken(2) << NOTHING
    return play


def test_it_fails_when_no_node_has_come_free_in_time() -> None:
    busy = Node(name="b", url="http://127.0.0.1:9", max_running=1)
    core = build("a", busy)
    play = on_two(core, able(core, "a", "b"))
    play.at(1.0) >> lost(1) << NOTHING
    play >> NodeLost("a") << NOTHING
    assert core.deadline <= 1.0 + GAP_S
    play.at(1.0 + GAP_S) >> Tick() << reject(1, Outcome.FAILED) << NOTHING


def test_it_goes_on_again_as_long_as_the_budget_lasts() -> None:
    core = build("a", "b", "c")
    core.retries = 1.0
    play = on_a(core, "b", "c")
    seen = ["a"]
    for round_ in range(3):
        play.at(2.0 + round_) >> lost(1, 10 + round_)
        got = play.pending.pop(0)
        if round_ == 2:
            assert got.outcome is Outcome.FAILED  # type: ignore[union-attr]
            return
        seen.append(got.node)  # type: ignore[union-attr]
        assert seen[-1] != seen[-2]
        play.at(2.5 + round_) >> FirstToken(1) << NOTHING


def test_all_streams_of_a_node_go_on_whatever_the_budget() -> None:
    core = build("a", "b")
    core.retries = 0.0
    on_a(core, "b") >> lost(1) << forward(1, "b") << NOTHING


def test_a_node_that_will_not_go_on_is_not_blamed_and_not_asked_again() -> None:
    core = build("a", "b", "c")
    play = on_a(core, "b", "c")
    play >> lost(1)
    first = play.pending.pop(0).node  # type: ignore[union-attr]
    play >> lost(1, failure=Failure.REFUSED)
    other = play.pending.pop(0).node  # type: ignore[union-attr]
    assert {first, other} == {"b", "c"}
    assert all(node.breaker.count == 0 for node in core.nodes if node.name != "a")
    play >> lost(1, failure=Failure.REFUSED) << reject(1, Outcome.FAILED) << NOTHING


def test_a_busy_node_is_asked_again_while_there_is_time() -> None:
    core = build("a", "b")
    play = on_a(core, "b")
    play >> lost(1) << forward(1, "b")
    play.at(1.1) >> lost(1, failure=Failure.BUSY) << NOTHING
    play.to_deadline() >> Tick()
    assert play.pending.pop(0).node == "b"  # type: ignore[union-attr]
    play.at(1.0 + GAP_S) >> lost(1, failure=Failure.BUSY) << reject(1, Outcome.FAILED) << NOTHING


def test_a_caller_who_leaves_meanwhile_is_forgotten() -> None:
    busy = Node(name="b", url="http://127.0.0.1:9", max_running=1)
    core = build("a", busy)
    play = on_two(core, able(core, "a", "b"))
    play.at(1.0) >> lost(1) << NOTHING
    play >> Cancelled(1) << NOTHING
    assert core.waiting == 0 and set(core.flights) == {2}


def test_an_answer_that_has_all_its_tokens_still_asks_how_it_ends() -> None:
    core = build("a", "b")
    on_a(core, "b", max_tokens=20) >> lost(1, 20) << forward(1, "b") << NOTHING
    assert core.flights[1].request.max_tokens == 1


def test_a_failure_that_made_work_costs_the_budget() -> None:
    core = build("a", "b", "c")
    core.retries = 1.0
    play = on_a(core, "b", "c")
    play >> lost(1)
    assert play.pending.pop(0).node in ("b", "c")  # type: ignore[union-attr]
    play >> lost(1, failure=Failure.TIMEOUT)
    assert play.pending.pop(0).node in ("b", "c")  # type: ignore[union-attr]
    assert core.retries < 1.0
    play >> lost(1, failure=Failure.TIMEOUT) << reject(1, Outcome.FAILED) << NOTHING


def test_a_node_that_could_not_be_reached_is_tried_again_where_there_is_no_other() -> None:
    core = build("a", "b")
    play = on_a(core, "b")
    core.retries = 0.0
    play >> lost(1) << forward(1, "b")
    # The one that broke off first may be back.
    play >> lost(1, failure=Failure.CONNECT) << forward(1, "a") << NOTHING


def test_the_order_of_the_configuration_counts_among_those_that_wait() -> None:
    core = build("a", "b", policy=Policy(order="value"))
    on_a(core, "b") >> lost(1) << forward(1, "b") << NOTHING
