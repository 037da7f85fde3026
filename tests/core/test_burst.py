"""A burst of one prefix: it stays with the node that has begun it while that pays, and spreads when it does not."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.playbook import NOTHING, Play, build, call, forward, reject

from penstock.config import Class, Node
from penstock.core.dispatch import BURST, burst
from penstock.events import Arrived, FirstToken, Forward, Tick
from penstock.facts import BLOCK_TOKENS, Outcome

PREFIX = tuple(range(1, 33))
"""16,384 tokens: about two seconds to compute, where a node is believed to compute 8,000 a second."""
TOKENS = (len(PREFIX) + 1) * BLOCK_TOKENS
ALIKE_S, COLD_S = 0.1, 2.2
"""Roughly what a request of the burst takes where its prefix is, and elsewhere."""


def like(id: int) -> Arrived:
    return Arrived(call(id, tokens=TOKENS, blocks=(*PREFIX, 1_000 + id)))


def came(play: Play, ids: range) -> list[Forward]:
    """What is sent at once of those that come."""
    sent = []
    for id in ids:
        play >> like(id)
        sent += [action for action in play.pending if isinstance(action, Forward)]
        play.pending = []
    return sent


def play(*nodes: Node, count: int = 4, ttft_ms: float | None = None) -> Play:
    rules = () if ttft_ms is None else (Class(name="usual", ttft_ms=ttft_ms),)
    return Play(build(*(f"n{index}" for index in range(count)), rules=rules))


def test_few_wait_for_the_node_that_computes_their_prefix() -> None:
    burst = play()
    (first,) = came(burst, range(1, 9))
    assert first.id == 1
    burst.at(COLD_S) >> FirstToken(1) << forward(2, first.node)


def test_those_behind_it_compute_only_what_is_their_own() -> None:
    burst = play()
    (first,) = came(burst, range(1, 9))
    burst.at(COLD_S) >> FirstToken(1)
    assert burst.pending
    for action in burst.pending:
        assert isinstance(action, Forward) and action.node == first.node and action.why[2] == len(PREFIX) * BLOCK_TOKENS


def test_many_spread_as_soon_as_waiting_costs_more_than_another_prefill() -> None:
    burst = play()
    sent = came(burst, range(1, 301))
    assert {action.node for action in sent} == {"n0", "n1", "n2", "n3"}
    assert len(sent) == 4, "one prefill of the prefix a node"


def test_the_larger_the_burst_the_more_nodes_compute_its_prefix() -> None:
    nodes = [len({action.node for action in came(play(count=12), range(1, 1 + count))}) for count in (10, 60, 120, 600)]
    assert nodes == sorted(nodes) and nodes[0] == 1 < nodes[-1]


def test_requests_that_have_nothing_in_common_take_all_nodes_at_once() -> None:
    apart = play()
    found: list[str] = []
    for id in range(1, 5):
        apart >> Arrived(call(id, tokens=TOKENS, blocks=tuple(range(1_000 * id, 1_000 * id + 33))))
        (action,) = apart.pending
        assert isinstance(action, Forward)
        found.append(action.node)
        apart.pending = []
    assert Counter(found) == {"n0": 1, "n1": 1, "n2": 1, "n3": 1}


def test_who_would_be_late_behind_the_others_is_sent_where_it_is_in_time() -> None:
    """Here 20 have time for 5 or so behind the first; another node computes the prefix again, and they all are in time."""
    burst = play(count=2, ttft_ms=1_000 * (COLD_S + 5 * ALIKE_S))
    assert {action.node for action in came(burst, range(1, 21))} == {"n0", "n1"}


def test_nobody_is_given_up_for_what_a_burst_is_thought_to_take() -> None:
    """What heads stand for others is a guess that spreads them; it refuses nobody who may yet be in time."""
    burst = play(count=1, ttft_ms=1_000 * (COLD_S + 20 * ALIKE_S))
    (first,) = came(burst, range(1, 13))
    burst.at(COLD_S) >> FirstToken(1) << forward(2, first.node)
    burst.pending = []
    burst.at(COLD_S + 0.001) >> Tick()
    assert not [action for action in burst.pending if not isinstance(action, Forward)]


def test_who_is_late_wherever_it_goes_is_refused_all_the_same() -> None:
    Play(build("n0", rules=(Class(name="usual", ttft_ms=500),))) >> like(1) << reject(1, Outcome.REFUSED_DEADLINE) >> Tick() << NOTHING


@pytest.mark.parametrize(
    ("begins", "found"),
    [
        ([(1,)] * BURST, True),
        ([(1,)] * (BURST - 1), False),
        ([(1,)] * BURST + [(2,)], False),
        ([()] * BURST, False),
    ],
)
def test_burst_is_several_that_begin_alike_and_no_others(begins: list[tuple[int, ...]], found: bool) -> None:
    assert burst(begins) is found
