"""Which nodes are looked at, and which of them is chosen."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from tests.playbook import call, flying

from penstock import config
from penstock.core.classify import DEFAULT
from penstock.core.fleet import Node
from penstock.core.lane import Lane
from penstock.core.prefix import PrefixIndex
from penstock.core.route import ALL, HOLDERS, KEPT_SLOTS, Choice, Router
from penstock.errors import ConfigError
from penstock.facts import BLOCK_TOKENS, Profile
from penstock.knobs import Knobs
from penstock.policy import SCORE
from penstock.policy.views import FlightView, NodeView

KNOBS = Knobs(sample=6)
LANE = Lane("m", [])
APART = Profile(name="p", source="made up", c0_s=0.02, c1_s=2e-4, c2_s=0.0, c3_s=1e-4, kv_tokens=50_000, cache_tokens=9_000)


def fleet(count: int, profile: Profile | None = None, **settings: object) -> list[Node]:
    named = [config.Node(name=f"n{i}", url="http://127.0.0.1:9", **settings) for i in range(count)]  # type: ignore[arg-type]
    return [Node(index, node, Knobs(), profile) for index, node in enumerate(named)]


class Looking:
    """Remembers which nodes it was shown, and likes all of them."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def score(self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float) -> list[float]:
        self.seen = [node.index for node in nodes]
        return [1.0] * len(nodes)


class Play:
    """A router over nodes, with an index of prefixes."""

    def __init__(self, nodes: list[Node], seed: int = 1, **policy: object) -> None:
        self.nodes, self.prefixes = nodes, PrefixIndex()
        for node in nodes:
            self.prefixes.add_node(node.index, 1_000)
        self.router = Router(config.Policy(**policy), self.prefixes, random.Random(seed))  # type: ignore[arg-type]

    def choose(
        self, blocks: tuple[int, ...] = (), tokens: int = 1_000, *,
        tried: int = 0, hint: Node | None = None, knobs: Knobs = KNOBS, **facts: Any,
    ) -> Choice | None:  # fmt: skip
        flight = flying(call(1, tokens=tokens, blocks=blocks, **facts), DEFAULT, LANE, 0.0, tried=tried)
        return self.router.choose(flight, self.nodes, tokens + 100, knobs, 0.0, hint)

    def chosen(self, blocks: tuple[int, ...] = (), tokens: int = 1_000, **facts: Any) -> Choice:
        choice = self.choose(blocks, tokens, **facts)
        assert choice is not None
        return choice

    def scored(self, blocks: tuple[int, ...] = (), *, hint: Node | None = None) -> set[int]:
        looking = Looking()
        self.router.single, self.router.leader = looking, None
        self.choose(blocks, hint=hint)
        assert len(looking.seen) == len(set(looking.seen))
        return set(looking.seen)


def test_few_nodes_are_all_scored() -> None:
    assert Play(fleet(ALL)).scored() == set(range(ALL))


def test_of_many_nodes_a_sample_is_scored_and_each_gets_its_turn() -> None:
    play = Play(fleet(200))
    rounds = [play.scored() for _ in range(500)]
    assert {len(seen) for seen in rounds} == {KNOBS.sample}
    assert set().union(*rounds) == set(range(200))


def test_sample_is_no_larger_than_the_fleet() -> None:
    play = Play(fleet(3))
    assert {node.index for node in play.router.candidates(play.nodes, {}, 6, None)} == {0, 1, 2}


def test_of_many_nodes_the_deepest_holders_and_the_hint_are_scored_beside_the_sample() -> None:
    play = Play(fleet(200))
    for depth, node in enumerate(range(100, 110), start=1):
        play.prefixes.insert(node, tuple(range(depth)))
    always = set.intersection(*(play.scored(tuple(range(10)), hint=play.nodes[7]) for _ in range(50)))
    assert always == {7, *range(110 - HOLDERS, 110)}


def test_holder_that_does_not_stand_at_its_number_is_not_mistaken_for_another() -> None:
    nodes = fleet(60)
    play = Play(nodes)
    play.nodes = nodes[20:]
    for node in (19, 30, 59):
        play.prefixes.insert(node, (1,))
    for _ in range(50):
        assert play.scored((1,)) <= set(range(20, 60))


def test_node_with_the_prefix_is_chosen_and_computes_the_rest() -> None:
    play = Play(fleet(4))
    play.prefixes.insert(2, (1, 2, 3))
    choice = play.chosen((1, 2, 3, 4), tokens=4 * BLOCK_TOKENS)
    assert (choice.node.index, choice.uncached) == (2, BLOCK_TOKENS)
    assert choice.ready_s == pytest.approx(choice.node.base_s + BLOCK_TOKENS * choice.node.token_s)


def test_last_token_of_a_prompt_is_always_computed() -> None:
    play = Play(fleet(1))
    play.prefixes.insert(0, (1, 2))
    assert play.chosen((1, 2), tokens=2 * BLOCK_TOKENS).uncached == 1


def test_backlog_counts_into_the_predicted_first_token() -> None:
    play = Play(fleet(1))
    play.nodes[0].free_at = 3.0
    assert play.chosen(tokens=800).ready_s == pytest.approx(3.0 + 0.02 + 0.1)


@pytest.mark.parametrize(("profile", "needed"), [(None, BLOCK_TOKENS + 100), (APART, 2 * BLOCK_TOKENS + 100)])
def test_prefix_of_a_running_request_is_needed_again_only_where_the_cache_is_apart(profile: Profile | None, needed: int) -> None:
    play = Play(fleet(1, profile))
    node, request = play.nodes[0], call(1, tokens=2 * BLOCK_TOKENS, blocks=(1, 2))
    node.memory.take((1,))
    assert node.kv_need(2 * BLOCK_TOKENS + 100, BLOCK_TOKENS, request) == needed


def test_prefix_that_only_the_cache_holds_needs_memory() -> None:
    node, request = Play(fleet(1)).nodes[0], call(1, tokens=2 * BLOCK_TOKENS, blocks=(1, 2))
    assert node.kv_need(2 * BLOCK_TOKENS + 100, BLOCK_TOKENS, request) == 2 * BLOCK_TOKENS + 100


@pytest.mark.parametrize(("profile", "fits"), [(None, True), (APART, False)])
def test_shared_prefix_lets_a_request_fit_into_a_nearly_full_node(profile: Profile | None, fits: bool) -> None:
    play = Play(fleet(1, profile, kv_tokens=10_000))
    memory = play.nodes[0].memory
    memory.reserve(9, int(memory.capacity) - 2 * BLOCK_TOKENS - 150)
    memory.take((1,))
    play.prefixes.insert(0, (1,))
    assert (play.choose((1, 2), 2 * BLOCK_TOKENS) is not None) is fits
    assert play.choose((8, 9), 2 * BLOCK_TOKENS) is None


def test_empty_node_is_chosen_for_what_can_never_fit() -> None:
    assert Play(fleet(1, kv_tokens=10)).chosen(tokens=1_000).node.index == 0


def test_full_guarded_and_tried_nodes_are_left_out() -> None:
    play = Play(fleet(4))
    play.nodes[0].running = play.nodes[0].max_running
    play.nodes[1].state = "lost"
    play.nodes[1].watch()
    assert {play.chosen(tried=1 << 2).node.index for _ in range(50)} == {3}
    assert play.choose(tried=0b1100) is None


def test_the_last_slots_are_kept_for_the_most_urgent() -> None:
    (node,) = nodes = fleet(1, max_running=128)
    play, node.running = Play(nodes), 126
    assert play.choose() is not None
    play.router.top, play.router.kept_slots = 5, KEPT_SLOTS
    assert play.choose() is None
    play.router.top = DEFAULT.priority
    assert play.choose() is not None


def test_a_node_with_few_slots_keeps_none() -> None:
    (node,) = nodes = fleet(1, max_running=32)
    play, node.running = Play(nodes), 31
    play.router.top, play.router.kept_slots = 5, KEPT_SLOTS
    assert play.choose() is not None


def test_guarded_node_that_admits_is_chosen() -> None:
    play = Play(fleet(1))
    play.nodes[0].guarded = True
    assert play.chosen().node.index == 0


def test_no_node_is_no_choice() -> None:
    assert Play([]).choose() is None


def test_node_with_a_backlog_is_chosen_all_the_same() -> None:
    play = Play(fleet(1))
    play.nodes[0].free_at = 100.0
    assert play.chosen().node.index == 0


def test_scores_are_added_by_weight() -> None:
    play = Play(fleet(2), score={"prefix": 2.0, "queue": 1.0})
    play.nodes[0].running = 1
    play.prefixes.insert(0, (1,))
    choice = play.chosen((1, 2), tokens=2 * BLOCK_TOKENS)
    assert choice.node.index == 0 and choice.score == pytest.approx(2.0 * 0.5 + 0.5)
    play = Play(fleet(2), score={"prefix": 0.5, "queue": 1.0})
    play.nodes[0].running = 1
    play.prefixes.insert(0, (1,))
    assert play.chosen((1, 2), tokens=2 * BLOCK_TOKENS).node.index == 1


def test_single_score_counts_whole_and_a_negative_weight_turns_it_round() -> None:
    for weight, expected in ((0.1, 1), (-1.0, 0)):
        play = Play(fleet(2), score={"queue": weight})
        play.nodes[0].running = 1
        assert play.chosen().node.index == expected


def test_same_seed_gives_the_same_choices() -> None:
    first, second = ([play.chosen().node.index for _ in range(50)] for play in (Play(fleet(200)), Play(fleet(200))))
    assert first == second and len(set(first)) > 10


def test_unknown_policy_is_named_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"policy\.score\.nonsense"):
        Play(fleet(1), score={"nonsense": 1.0})


def test_one_pass_over_scores_and_pick_chooses_as_the_two_steps_do() -> None:
    short, long = Play(fleet(8), seed=3), Play(fleet(8), seed=3)
    long.router.leader = None
    assert short.router.leader is not None
    for turn in range(200):
        for play in (short, long):
            play.nodes[turn % 8].running += turn % 3
            play.nodes[turn % 5].free_at = 0.01 * (turn % 7)
        one, other = short.chosen(), long.chosen()
        assert (one.node.name, one.score, one.ready_s) == (other.node.name, other.score, other.ready_s)


def test_equal_nodes_share_evenly() -> None:
    for score in ({"latency": 1.0}, {"latency": 1.0, "session": 0.5, "locality": 0.5, "cost": 1.0}):
        play = Play(fleet(8, cost=2.0), score=score)
        found = Counter(play.chosen().node.index for _ in range(8_000))
        # Three deviations of a fair draw are 89.
        assert len(found) == 8 and min(found.values()) > 880 and max(found.values()) < 1_120


def test_same_seed_gives_the_same_choices_among_equals_and_another_seed_others() -> None:
    found = [[play.chosen().node.index for _ in range(50)] for play in (Play(fleet(8)), Play(fleet(8)), Play(fleet(8), seed=2))]
    assert found[0] == found[1] != found[2]


def test_knobs_turn_the_weights_of_several_scores() -> None:
    play = Play(fleet(2, cost=0.0), score={"queue": 1.0, "cost": 1.0})
    play.nodes[0].cost, play.nodes[1].running = 0.1, 1
    assert play.chosen().node.index == 0, "half a queue is worth more than a tenth of a unit"
    for knobs, index, score in (
        (Knobs(weight_cost=6.0), 1, 0.5),
        (Knobs(weight_cost=6.0, weight_queue=2.0), 0, 2.0 - 0.6),
        (Knobs(weight_queue=0.0), 1, 0.0),
        (Knobs(), 0, 1.0 - 0.1),
    ):
        choice = play.chosen(knobs=knobs)
        assert choice.node.index == index and choice.score == pytest.approx(score)


def test_weight_of_a_score_alone_is_not_turned() -> None:
    play = Play(fleet(2), score={"queue": 1.0})
    play.nodes[0].running = 1
    assert {play.chosen(knobs=Knobs(weight_queue=0.0)).node.index for _ in range(20)} == {1}


def test_outside_scores_keep_the_weight_that_the_configuration_gives_them() -> None:
    play = Play(fleet(2), score={"penstock.policy.score.queue:Queue": 2.0, "cost": 1.0})
    assert play.chosen(knobs=Knobs(weight_queue=0.0)).score == 2.0


def test_every_shipped_score_has_a_knob() -> None:
    assert {f"weight_{name}" for name in SCORE} == {name for name in Knobs.__struct_fields__ if name.startswith("weight_")}


def test_of_many_nodes_the_one_that_served_the_session_is_scored() -> None:
    play = Play(fleet(200), score={"latency": 1.0, "session": 0.5})
    play.router.sessions.served(call(9, session="s"), 123)
    assert {play.chosen(session="s").node.index for _ in range(20)} == {123}
    assert len({play.chosen(session="t").node.index for _ in range(20)}) > 5


@pytest.mark.parametrize("count", [8, ALL + 1, 200])
def test_hashing_looks_at_all_nodes(count: int) -> None:
    first, second = Play(fleet(count), pick="hash"), Play(fleet(count), pick="hash", seed=2)
    found = [first.chosen(session=str(key)).node.index for key in range(2_000)]
    assert found == [second.chosen(session=str(key)).node.index for key in range(2_000)]
    assert len(set(found)) > 0.99 * count


def test_hashing_goes_by_what_the_configuration_names() -> None:
    by_prefix, by_tenant = Play(fleet(8), pick="hash"), Play(fleet(8), pick="hash", hash_by=("tenant",))
    assert len({by_prefix.chosen((key,), tenant="t").node.index for key in range(100)}) == 8
    assert len({by_tenant.chosen((key,), tenant="t").node.index for key in range(100)}) == 1


def test_hashing_passes_over_who_cannot_take_it_and_comes_back() -> None:
    play = Play(fleet(8), pick="hash")
    home = play.chosen(session="s").node
    home.running = home.max_running
    away = play.chosen(session="s").node
    assert away is not home
    assert play.chosen(session="s", tried=away.bit).node not in (home, away)
    home.running = 0
    assert play.chosen(session="s").node is home


def test_hashing_keeps_to_the_bound_that_the_knob_sets() -> None:
    play = Play(fleet(4), pick="hash")
    home = play.chosen(session="s").node
    home.running = 2
    away = play.chosen(session="s")
    assert away.node is not home and away.score == 0.0
    loose = play.chosen(session="s", knobs=Knobs(hash_bound=4.0))
    assert loose.node is home and loose.score == 1.0


def test_hashing_tells_what_is_cached_where_it_goes() -> None:
    play = Play(fleet(4), pick="hash")
    home = play.chosen((1, 2, 3), tokens=3 * BLOCK_TOKENS).node
    play.prefixes.insert(home.index, (1, 2))
    assert play.chosen((1, 2, 3), tokens=3 * BLOCK_TOKENS).uncached == BLOCK_TOKENS
