"""Which node served a session last, and what is forgotten."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.playbook import NOTHING, Play, build, call, forward

from penstock.config import Config, Node, Policy
from penstock.core.sessions import Sessions
from penstock.events import Arrived, ConfigReplaced, Finished, Forward, KnobsSet, NodeLost, NodeSeen
from penstock.facts import Signals
from penstock.knobs import Knobs

STICKY = Policy(score={"latency": 1.0, "session": 0.5})


def test_last_node_is_remembered() -> None:
    sessions = Sessions()
    asked = call(1, session="s", tenant="t")
    assert sessions.node_of(asked) == -1
    sessions.served(asked, 3)
    sessions.served(asked, 5)
    assert sessions.node_of(call(2, session="s", tenant="t")) == 5


def test_tenants_do_not_see_each_others_sessions() -> None:
    sessions = Sessions()
    sessions.served(call(1, session="s", tenant="a"), 3)
    assert sessions.node_of(call(1, session="s", tenant="b")) == -1


def test_requests_without_a_session_take_no_room() -> None:
    sessions = Sessions()
    sessions.served(call(1), 3)
    assert not sessions.nodes and sessions.node_of(call(1)) == -1


def test_node_that_lost_what_it_had_is_forgotten() -> None:
    sessions = Sessions()
    for number in range(10):
        sessions.served(call(1, session=str(number)), number % 2)
    sessions.forget(1)
    assert [sessions.node_of(call(1, session=str(number))) for number in range(4)] == [0, -1, 0, -1]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3))), st.integers(1, 6))
def test_table_holds_the_last_used_and_no_more(used: list[tuple[int, int]], most: int) -> None:
    sessions, last = Sessions(most), dict[int, int]()
    for number, node in used:
        sessions.served(call(1, session=f"s{number}"), node)
        last.pop(number, None)
        last[number] = node
        assert len(sessions.nodes) == min(most, len(last))
    kept = dict(list(last.items())[-most:])
    assert {number: sessions.node_of(call(1, session=f"s{number}")) for number in range(10)} == {
        number: kept.get(number, -1) for number in range(10)
    }


def play(policy: Policy = STICKY) -> Play:
    play = Play(build("a", "b", "c", "d", policy=policy))
    for name in "bcd":
        play.core.roster.node(name).state = "draining"  # type: ignore[union-attr]
        play.core.roster.node(name).watch()  # type: ignore[union-attr]
    play >> Arrived(call(1, session="s")) << forward(1, "a") >> Finished(1) << NOTHING
    for node in play.core.nodes:
        node.state = "up"
        node.watch()
    return play


def nodes_of(play: Play, first: int, count: int = 40, **facts: Any) -> set[str]:
    found = set()
    for id in range(first, first + count):
        play >> Arrived(call(id, tokens=10, **facts))
        (action,) = play.pending
        assert isinstance(action, Forward)
        found.add(action.node)
        play.pending = []
        play >> Finished(id) << NOTHING
    return found


def test_session_comes_back_to_its_node() -> None:
    assert nodes_of(play(), 2, session="s") == {"a"}
    assert len(nodes_of(play(), 2, session="")) > 1


def test_without_the_score_nothing_is_remembered() -> None:
    stranger = play(Policy())
    assert len(nodes_of(stranger, 2, session="s")) > 1
    assert not stranger.core.sessions.nodes


def test_session_leaves_its_node_when_that_costs_more_than_the_weight_is_worth() -> None:
    busy = play()
    busy.core.roster.node("a").free_at = 0.4  # type: ignore[union-attr]
    busy >> Arrived(call(2, session="s", tokens=10))
    busy.pending = []
    assert busy.core.flights[2].node is None, "it waits for its node, which is worth half a second"
    busy = play()
    busy.core.roster.node("a").free_at = 0.6  # type: ignore[union-attr]
    assert nodes_of(busy, 2, 1, session="s") < {"b", "c", "d"}


def test_weight_can_be_turned_while_requests_flow() -> None:
    turned = play()
    turned >> KnobsSet(Knobs(weight_session=0.0)) << NOTHING
    assert len(nodes_of(turned, 2, session="s")) > 1
    turned >> KnobsSet(Knobs(weight_session=1.0)) << NOTHING
    assert len(nodes_of(turned, 50, session="s")) == 1


def test_session_is_not_bound_to_a_node_that_restarted() -> None:
    lost = play()
    lost >> NodeLost("a") << NOTHING >> NodeSeen("a", Signals()) << NOTHING
    assert lost.core.sessions.node_of(call(1, session="s")) == -1


def test_sessions_outlive_a_new_configuration() -> None:
    kept = play()
    nodes = tuple(Node(name=name, url="http://127.0.0.1:9") for name in "abcd")
    kept >> ConfigReplaced(Config(nodes=nodes, policy=STICKY)) << NOTHING
    assert nodes_of(kept, 2, session="s") == {"a"}
