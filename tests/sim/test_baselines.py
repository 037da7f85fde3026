"""Each router's rule on a case small enough to check by hand."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest

from penstock.errors import TraceError
from penstock.facts import Request, Signals
from penstock.sim.baselines import (
    AnyNode,
    ConsistentHash,
    LeastRequests,
    LeastTokens,
    LlmdKvUsage,
    LlmdPrefix,
    LlmdQueue,
    MaxScore,
    RoundRobin,
    SglangCacheAware,
)
from penstock.sim.presets import PRESETS, preset


class Memory(msgspec.Struct, frozen=True):
    reserved: int = 0


class Node(msgspec.Struct):
    index: int
    running: int = 0
    reported: Signals = Signals()
    memory: Memory = Memory()

    def kv(self) -> Memory:
        return self.memory

    @property
    def name(self) -> str:
        return f"n{self.index}"


class Flight(msgspec.Struct):
    request: Request


def nodes(*running: int) -> list[Any]:
    return [Node(index, count) for index, count in enumerate(running)]


def flight(id: int = 1, **facts: Any) -> Any:
    return Flight(Request(id, "m", **facts))


def chosen(policy: Any, asked: Any, fleet: list[Any], now: float = 0.0) -> int:
    scores = policy.score(asked, fleet, [0] * len(fleet), now)
    return int(fleet[scores.index(max(scores))].index)


def test_round_robin_takes_turns_and_passes_over_the_missing() -> None:
    policy, fleet = RoundRobin(), nodes(9, 0, 0)
    assert [chosen(policy, flight(), fleet) for _ in range(4)] == [0, 1, 2, 0]
    assert [chosen(policy, flight(), [fleet[0], fleet[2]]) for _ in range(3)] == [2, 0, 2]
    assert chosen(policy, flight(), fleet[::-1]) == 0


def test_least_requests_prefers_the_emptier() -> None:
    assert LeastRequests().score(flight(), nodes(3, 1, 2), [0, 0, 0], 0.0) == [-3.0, -1.0, -2.0]


def test_load_balance_prefers_the_fewest_tokens_in_flight() -> None:
    fleet: list[Any] = [Node(0, 1, memory=Memory(9_000)), Node(1, 5, memory=Memory(500))]
    assert chosen(LeastTokens(), flight(), fleet) == 1


def test_random_takes_every_node_alike() -> None:
    rng, fleet = Random(1), nodes(9, 0, 0)
    scores = AnyNode().score(flight(), fleet, [512, 0, 0], 0.0)
    drawn = [MaxScore().pick(scores, fleet, rng) for _ in range(300)]
    assert all(70 < drawn.count(index) < 130 for index in range(3))


def test_max_score_draws_among_equals_only() -> None:
    rng = Random(1)
    assert {MaxScore().pick([1.0, 2.0, 2.0], nodes(0, 0, 0), rng) for _ in range(50)} == {1, 2}
    assert MaxScore().pick([1.0, 2.0, 1.99], nodes(0, 0, 0), rng) == 1


def test_consistent_hash_keeps_a_key_on_its_node() -> None:
    policy, fleet = ConsistentHash(), nodes(0, 0, 0, 0)
    homes = {session: chosen(policy, flight(session=session), fleet) for session in map(str, range(200))}
    assert homes == {session: chosen(policy, flight(7, session=session), fleet[::-1]) for session in homes}
    assert set(homes.values()) == {0, 1, 2, 3}
    fewer = {session: chosen(policy, flight(session=session), fleet[:3]) for session in homes}
    assert all(fewer[session] == home for session, home in homes.items() if home < 3)


def test_consistent_hash_passes_over_a_node_above_its_share() -> None:
    policy = ConsistentHash()
    home = chosen(policy, flight(session="x"), nodes(0, 0, 0))
    running = [4, 4, 4]
    running[home] = 6  # 14 requests and this one: at most ceil(1.25 * 15 / 3) = 7 a node
    assert chosen(policy, flight(session="x"), nodes(*running)) == home
    running[home] = 7
    assert chosen(policy, flight(session="x"), nodes(*running)) != home


def test_consistent_hash_prefers_session_then_first_block_then_tenant() -> None:
    policy = ConsistentHash()
    assert policy.key(flight(session="s", blocks=(5,), tenant="t")) == "s"
    assert policy.key(flight(blocks=(5, 6), tenant="t")) == "block 5"
    assert policy.key(flight(tenant="t")) == "t"
    assert policy.key(flight(3)) == "request 3"


def test_sglang_sends_unknown_prompts_to_the_smallest_tree() -> None:
    policy, fleet = SglangCacheAware(), nodes(0, 0)
    assert chosen(policy, flight(prompt_tokens=1_000), fleet) == 0
    assert chosen(policy, flight(prompt_tokens=100), fleet) == 1
    assert chosen(policy, flight(prompt_tokens=100), fleet) == 1
    assert [policy.size("n0"), policy.size("n1")] == [1_000, 200]


def test_sglang_follows_a_prefix_above_the_threshold() -> None:
    policy, fleet = SglangCacheAware(), nodes(0, 0)
    first = chosen(policy, flight(prompt_tokens=1_024, blocks=(1, 2)), fleet)
    assert chosen(policy, flight(prompt_tokens=1_600, blocks=(1, 3, 4)), fleet) == first  # 512 of 1,600 match: 0.32
    assert chosen(policy, flight(prompt_tokens=2_000, blocks=(1, 5, 6)), fleet) != first  # 512 of 2,000 match: 0.256


def test_sglang_balances_when_both_thresholds_are_passed() -> None:
    policy = SglangCacheAware()
    asked = flight(prompt_tokens=1_024, blocks=(1, 2))
    assert chosen(policy, asked, nodes(0, 0)) == 0
    assert chosen(policy, asked, nodes(64, 0)) == 0
    assert chosen(policy, asked, nodes(195, 130)) == 0  # 65 more, but not above 1.5 times
    assert chosen(policy, asked, nodes(65, 0)) == 1


def test_sglang_falls_back_to_the_first_when_the_holder_is_gone() -> None:
    policy, fleet = SglangCacheAware(), nodes(0, 0, 0)
    asked = flight(prompt_tokens=1_024, blocks=(1, 2))
    assert chosen(policy, asked, fleet) == 0
    assert chosen(policy, asked, fleet[1:]) == 1


def test_sglang_evicts_the_least_recently_sent() -> None:
    policy, fleet = SglangCacheAware(), nodes(0)
    policy.TREE_BLOCKS = 3
    for first in (10, 20):
        chosen(policy, flight(prompt_tokens=1_024, blocks=(first, first + 1)), fleet)
    assert policy.match((10, 11)) == (2, "n0")
    chosen(policy, flight(prompt_tokens=512, blocks=(30,)), fleet, now=200.0)
    assert policy.match((10, 11)) == (1, "n0")
    assert policy.match((20, 21)) == (2, "n0")
    chosen(policy, flight(prompt_tokens=512, blocks=(30,)), fleet, now=400.0)
    assert policy.match((10, 11)) == (0, "")
    assert len(policy.holders) == len(policy.held["n0"]) == 3


def test_llmd_scores_reported_queues_between_fewest_and_most() -> None:
    fleet = [Node(index, 0, Signals(waiting=waiting)) for index, waiting in enumerate((0, 1, 4, None))]
    assert LlmdQueue().score(flight(), fleet, [0] * 4, 0.0) == [1.0, 0.75, 0.0, 1.0]  # type: ignore[arg-type]
    assert LlmdQueue().score(flight(), nodes(5, 6), [0, 0], 0.0) == [1.0, 1.0]


def test_llmd_scores_free_memory_and_matched_blocks() -> None:
    fleet = [Node(0, 0, Signals(kv_usage=0.25)), Node(1)]
    assert LlmdKvUsage().score(flight(), fleet, [0, 0], 0.0) == [0.75, 1.0]  # type: ignore[arg-type]
    assert LlmdPrefix().score(flight(prompt_tokens=2_048), nodes(0, 0), [512, 0], 0.0) == [0.25, 0.0]
    assert LlmdPrefix().score(flight(prompt_tokens=40_000), nodes(0, 0), [4_096, 20_480], 0.0) == [1.0, 1.0]


def test_presets_are_the_promised_ones_and_say_what_they_are() -> None:
    assert list(PRESETS) == [
        "penstock", "fifo-rr", "random", "load-balance", "least-requests", "two-choices", "consistent-hash", "sglang-cache-aware",
        "llmd-default", "llmd-load", "penstock-tickets",
    ]  # fmt: skip
    assert all(one.about for one in PRESETS.values())
    assert sorted(PRESETS["llmd-default"].policy.score.values()) == [2.0, 2.0, 3.0]
    with pytest.raises(TraceError, match="unknown preset 'x'; known: penstock, fifo-rr"):
        preset("x")
