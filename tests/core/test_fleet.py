"""One node: what it is given, when it has room for more, and what its answers teach."""

from __future__ import annotations

from math import inf, nan

import pytest
from tests.playbook import call, flying

from penstock import config
from penstock.core.breaker import Result
from penstock.core.classify import DEFAULT
from penstock.core.fleet import ENGINE_QUEUE, FROZEN, LATE_PREFILLS, MAX_RUNNING, STALE_S, WHOLE, Node, nodes_of
from penstock.core.flight import Flight
from penstock.core.lane import Lane
from penstock.core.predict import AIM, AIM_LEAST, AIM_MOST, LEAST_SHARE
from penstock.facts import Profile, Signals
from penstock.knobs import Knobs

DEPTH_S = 0.15
LANE = Lane("m", [])
SHORT_S, LONG_S = 0.1 * DEPTH_S, 10 * DEPTH_S
PROFILE = Profile(
    name="p", source="made up", c0_s=0.01, c1_s=1e-4, c2_s=0.0, c3_s=5e-5, kv_tokens=50_000, cache_tokens=9_000, max_sequences=32
)


def node(profile: Profile | None = None, **settings: object) -> Node:
    return Node(0, configured("a", **settings), Knobs(), profile)


def configured(name: str, **settings: object) -> config.Node:
    return config.Node(name=name, url="http://127.0.0.1:9", **settings)  # type: ignore[arg-type]


def paced(tpot_s: float = 0.05) -> Node:
    """A node with a time between tokens to keep, whose streams were seen just now."""
    made = node()
    made.tpot_s = tpot_s
    made.learn_pace()
    made.progress(0, 0.0, 0.0)
    return made


def given(made: Node, id: int = 1, tokens: int = 8_000, now: float = 0.0, stream: bool = True) -> Flight:
    """A prompt of a second at the first guess of 8,000 tokens a second, given to the node."""
    flight = flying(call(id, tokens=tokens, stream=stream), DEFAULT, LANE, now, uncached=tokens, forwarded=now)
    made.give(flight, tokens, now)
    return flight


def started(made: Node, flight: Flight, now: float) -> None:
    made.first_token(flight, now)
    flight.first = now


def whole(made: Node, id: int, tokens: int, now: float, seconds: float) -> None:
    """A JSON answer from its request to its end."""
    flight = given(made, id, tokens, now, stream=False)
    made.learn_whole(flight, now + seconds)
    made.take_back(flight, now + seconds)


def test_node_without_profile_takes_what_an_engine_takes_by_default() -> None:
    made = node()
    assert (made.max_running, made.limit, made.memory.capacity, made.shares_prefix) == (MAX_RUNNING, MAX_RUNNING, inf, True)


def test_profile_tells_slots_memory_and_rate_and_the_configuration_overrides_it() -> None:
    made = node(PROFILE)
    assert (made.max_running, made.kv_tokens, made.base_s) == (32, 50_000, 0.01)
    made = node(PROFILE, max_running=3, kv_tokens=1_000)
    assert (made.max_running, made.kv_tokens) == (3, 1_000)


def test_cache_apart_from_the_kv_pool_shares_no_prefix() -> None:
    assert not node(PROFILE).shares_prefix


def test_memory_is_resized_by_its_knob() -> None:
    made = node(kv_tokens=10_000)
    assert made.memory.capacity == 9_500
    made.size_memory(Knobs(kv_share=0.5))
    assert made.memory.capacity == 5_000 and not made.memory.held


def test_unknown_memory_stays_unknown_whatever_the_knob() -> None:
    made = node()
    made.size_memory(Knobs(kv_share=0.5))
    assert made.memory.capacity == inf


def test_idle_node_has_room_and_a_backlogged_one_when_all_but_the_depth_is_done() -> None:
    made = node()
    assert made.has_room(DEPTH_S, 0.0)
    given(made)
    free = made.free_at
    assert free == pytest.approx(1.02)
    assert not made.has_room(DEPTH_S, free - DEPTH_S - 0.01) and made.has_room(DEPTH_S, free - DEPTH_S + 0.01)


def test_unpaced_node_opens_for_long_and_short_prompts_at_one_time() -> None:
    made = node()
    given(made)
    assert made.opens_at(DEPTH_S)[0] == made.free_at - DEPTH_S
    assert made.has_room(DEPTH_S, made.free_at - DEPTH_S + 0.01, LONG_S)


def test_paced_node_opens_for_a_long_prompt_when_the_pause_is_over() -> None:
    made = paced()
    given(made)
    short_at, long_at = made.opens_at(DEPTH_S)
    assert (short_at, long_at) == (made.free_at - DEPTH_S, made.free_at)
    between = (short_at + long_at) / 2
    assert made.has_room(DEPTH_S, between, SHORT_S) and not made.has_room(DEPTH_S, between, LONG_S)
    assert made.has_room(DEPTH_S, long_at, LONG_S)


@pytest.mark.parametrize(("prompts", "room"), [(LATE_PREFILLS - 1, True), (LATE_PREFILLS, False)])
def test_late_node_is_given_only_so_many_prompts(prompts: int, room: bool) -> None:
    made = node()
    for id in range(prompts):
        given(made, id, tokens=80)
    assert made.has_room(DEPTH_S, made.busy_until + 0.9 * DEPTH_S)
    assert made.has_room(DEPTH_S, made.busy_until + 1.1 * DEPTH_S) is room


def test_first_token_of_a_late_node_opens_it_again() -> None:
    made = node()
    flights = [given(made, id, tokens=80) for id in range(LATE_PREFILLS)]
    assert not made.has_room(DEPTH_S, 5.0)
    started(made, flights[0], 5.0)
    assert made.has_room(DEPTH_S, 5.0)


def test_prefill_of_a_late_node_is_timed_from_when_it_began() -> None:
    made = node()
    given(made, 1, tokens=80, now=1.0)
    given(made, 2, tokens=80, now=3.0)
    assert made.busy_until > 3.0 and made.prefill.mark == 1.0


def test_prompts_that_wait_together_pay_a_step_s_base_once() -> None:
    made = node()
    first, second = given(made, 1), given(made, 2)
    assert [first.own_s, second.own_s] == [pytest.approx(1.02), pytest.approx(1.0)]
    assert made.busy_until == made.free_at == pytest.approx(2.02)


def test_paced_prompt_takes_its_share_of_the_time() -> None:
    made = paced()
    given(made)
    expected = (1 - (0.02 + 2e-4) / (0.05 * AIM)) * made.worth
    assert made.share == pytest.approx(expected) and made.share < 1
    assert made.free_at == pytest.approx(8_000 * made.token_s / expected)
    assert made.busy_until == pytest.approx(1.02)


def test_share_falls_with_every_stream_but_never_to_nothing() -> None:
    made, shares = paced(), []
    for id in range(200):
        given(made, id, tokens=1)
        shares.append(made.share)
    assert shares == sorted(shares, reverse=True) and shares[0] > shares[1] and shares[-1] == LEAST_SHARE


def test_share_follows_the_steps_that_were_learned() -> None:
    made = paced()
    given(made, tokens=1)
    before = made.share
    for second in range(1, 100):
        # Ten streams, each of which gets a token every 5 ms: steps four times faster than guessed.
        made.progress(2_000, 10.0, float(second))
    assert made.share > before and made.steps.itl_s == pytest.approx(0.005, rel=0.05)


@pytest.mark.parametrize("made", [node(), paced(tpot_s=10.0)])
def test_node_with_time_for_every_promise_is_not_paced(made: Node) -> None:
    flight = given(made)
    assert made.share == 1.0 and made.free_at == pytest.approx(flight.own_s)


def test_node_without_a_promised_time_between_tokens_is_never_paced() -> None:
    made = node()
    made.token_s = made.steps.token_s / 4
    for second in range(1, 5):
        made.progress(2_000, 10.0, float(second))
    assert made.share == 1.0


def test_node_whose_streams_were_not_seen_of_late_is_not_paced() -> None:
    made = paced()
    given(made, now=STALE_S - 0.1)
    assert made.share < 1.0
    given(made, 2, now=STALE_S)
    assert made.share == 1.0


def test_late_steps_do_not_push_the_plan_of_a_paced_node() -> None:
    made = paced()
    flight = given(made)
    plan = made.free_at
    started(made, flight, plan - 0.2)
    assert made.busy_until == pytest.approx(plan - 0.2) and made.free_at == plan


def test_plan_of_a_paced_node_moves_when_the_node_is_behind_it() -> None:
    made = paced()
    flight = given(made)
    started(made, flight, made.free_at + 3.0)
    assert made.free_at == made.busy_until and made.free_at > 3.0


def test_unpaced_node_is_free_at_its_first_token() -> None:
    made = node()
    started(made, given(made), 0.3)
    assert made.free_at == made.busy_until == 0.3


def test_taking_back_before_the_first_token_frees_the_time_the_slot_and_the_memory() -> None:
    made = node(kv_tokens=100_000)
    first, second = given(made, 1), given(made, 2)
    made.take_back(second, 0.5)
    assert (made.running, made.prefilling, made.pending_tokens, set(made.memory.held)) == (1, 1, 8_000, {1})
    assert made.pending_s == pytest.approx(first.own_s)
    made.take_back(first, 0.5)
    assert (made.running, made.prefilling, made.pending_tokens, made.memory.reserved, made.free_at) == (0, 0, 0, 0, 0.5)


def test_paced_node_taken_back_before_the_first_token_is_free_sooner() -> None:
    made = paced()
    flight = given(made)
    plan = made.free_at
    made.take_back(flight, 0.1)
    assert 0.1 <= made.free_at == pytest.approx(plan - flight.own_s)


def test_taking_back_after_the_first_token_leaves_the_backlog_of_others() -> None:
    made = node()
    first, _ = given(made, 1), given(made, 2)
    started(made, first, 1.0)
    free = made.free_at
    made.take_back(first, 1.1)
    assert (made.free_at, made.prefilling, made.running) == (free, 1, 1)


def test_json_answer_that_ends_early_gives_back_the_rest_of_its_time() -> None:
    made = node()
    made.take_back(given(made, stream=False), 0.4)
    assert made.free_at == made.busy_until == pytest.approx(0.4)


def test_json_answer_that_ends_late_gives_nothing_back() -> None:
    made = node()
    flight = given(made, stream=False)
    free = made.free_at
    made.take_back(flight, free + 1.0)
    assert made.free_at == free and made.running == 0


def test_json_answer_of_a_lone_request_teaches_that_the_node_is_faster() -> None:
    made = node()
    for id in range(30):
        whole(made, id, 8_000 - 100 * id, now=2.0 * id, seconds=0.25)
    assert made.base_s + 6_000 * made.token_s == pytest.approx(0.25, rel=0.1)


def test_slow_json_answer_teaches_nothing_as_it_may_have_been_long() -> None:
    made = node()
    for id in range(2 * WHOLE):
        whole(made, id, 800, now=20.0 * id, seconds=10.0)
    assert made.prefill.line.n == 0


def test_many_json_answers_side_by_side_teach_by_their_rate() -> None:
    made = node()
    flights = [given(made, id, stream=False) for id in range(WHOLE)]
    for id, flight in enumerate(flights[:-1]):
        made.learn_whole(flight, 0.1 * (id + 1))
    assert made.prefill.line.n == 0
    made.learn_whole(flights[-1], 0.1 * WHOLE)
    assert made.prefill.line.n == 1 and made.base_s + 8_000 * made.token_s < 0.5
    assert (made.whole_count, made.whole_tokens, made.whole_began) == (0, 0, 0.1 * WHOLE)


def test_many_json_answers_at_a_slow_rate_teach_nothing() -> None:
    made = node()
    flights = [given(made, id, stream=False) for id in range(WHOLE)]
    for id, flight in enumerate(flights):
        made.learn_whole(flight, 5.0 * (id + 1))
    assert made.prefill.line.n == 0 and made.whole_count == 0


def test_pause_does_not_count_into_the_rate_of_json_answers() -> None:
    made = node()
    whole(made, 1, 800, now=0.0, seconds=10.0)
    assert made.whole_count == 1
    given(made, 2, now=100.0)
    assert (made.whole_count, made.whole_began) == (0, 100.0)


def test_prompt_tokens_of_an_interval_are_counted_before_the_first_token_too() -> None:
    made = node()
    given(made)
    made.progress(0, 0.0, 0.5)
    assert made.progress_tokens == pytest.approx(4_000)
    made.progress(0, 0.0, 60.0)
    assert made.progress_tokens == 8_000


def test_two_progress_reports_at_one_moment_are_one() -> None:
    made = node()
    made.progress(100, 10.0, 1.0)
    made.progress(100, 10.0, 1.0)
    assert made.steps.factors == [1.0, 1.0, 1.0]
    made.progress(2_000, 10.0, 2.0)
    assert made.steps.factors != [1.0, 1.0, 1.0]


def busy(made: Node, waiting: int | None, now: float = 0.0) -> None:
    made.reported, made.reported_at = Signals(waiting=waiting), now
    made.watch()


def test_report_of_a_long_engine_queue_guards_a_node_and_goes_stale() -> None:
    made = node()
    flight = given(made)
    busy(made, ENGINE_QUEUE + 1)
    assert made.guarded and not made.admits(STALE_S - 0.1) and made.admits(STALE_S)
    started(made, flight, 0.1)
    assert made.admits(0.1), "nothing of ours waits there"


def test_our_own_prefills_that_wait_in_an_engine_guard_nothing() -> None:
    made = node()
    for _ in range(ENGINE_QUEUE):
        given(made)
    busy(made, ENGINE_QUEUE)
    assert not made.guarded
    busy(made, 2 * ENGINE_QUEUE)
    assert made.guarded


@pytest.mark.parametrize("waiting", [None, 0, ENGINE_QUEUE - 1])
def test_report_of_a_short_engine_queue_guards_nothing(waiting: int | None) -> None:
    made = node()
    given(made)
    busy(made, waiting)
    assert not made.guarded and made.admits(0.0)


def test_node_that_is_not_up_or_broken_is_guarded_and_admits_nothing() -> None:
    made = node()
    made.state = "draining"
    made.watch()
    assert made.guarded and not made.admits(0.0)
    made.state = "up"
    made.breaker.note(Result.FAILURE, 0.0, Knobs(breaker_failures=1))
    made.watch()
    assert made.guarded and not made.admits(0.0) and made.admits(30.0)


def test_snapshot_tells_the_size_of_memory_where_it_is_known() -> None:
    assert node().snapshot(0, 0.0).kv_tokens is None
    made = node(kv_tokens=10_000)
    given(made)
    seen = made.snapshot(7, 0.5)
    assert (seen.kv_tokens, seen.kv_reserved_tokens, seen.prefilling, seen.prefix_blocks) == (9_500, 8_000, 1, 7)
    assert seen.backlog_s == pytest.approx(0.52) and seen.prefill_tokens_per_s == pytest.approx(8_000)
    assert made.snapshot(0, 50.0).backlog_s == 0.0


def test_unchanged_nodes_stay_as_they_are_and_others_get_new_numbers() -> None:
    profiles = {"p": PROFILE}
    before = {n.name: n for n in nodes_of(config.Config(nodes=(configured("a"), configured("b"))), Knobs(), profiles, {}, 0)}
    again = config.Config(nodes=(configured("c"), configured("b", max_running=2), configured("a"), configured("d", profile="p")))
    after = nodes_of(again, Knobs(), profiles, before, 2)
    assert [(n.name, n.index) for n in after] == [("c", 2), ("b", 3), ("a", 0), ("d", 4)]
    assert after[2] is before["a"] and after[1].max_running == 2 and after[3].max_running == 32


@pytest.mark.parametrize("lie", [nan, inf, -inf, -0.5, 17.0])
def test_impossible_memory_use_is_not_believed(lie: float) -> None:
    made = node()
    made.hear(Signals(running=1, kv_usage=lie), 0.0)
    assert made.reported.kv_usage is None and made.reported.running == 1


@pytest.mark.parametrize("lie", [-1, -(10**9), 10**9])
def test_impossible_counts_are_not_believed(lie: int) -> None:
    made = node()
    given(made)
    made.hear(Signals(running=lie, waiting=lie), 0.0)
    made.watch()
    assert made.reported.running is None and made.reported.waiting is None and made.admits(0.0)


def test_long_queue_is_believed_until_it_has_not_moved_for_long() -> None:
    made = node()
    given(made)
    for second in range(FROZEN):
        made.hear(Signals(waiting=ENGINE_QUEUE), float(second))
        assert not made.admits(float(second))
    made.hear(Signals(waiting=ENGINE_QUEUE), float(FROZEN))
    assert made.admits(float(FROZEN)), "frozen: our own counts are what is left"
    made.hear(Signals(waiting=ENGINE_QUEUE + 1), FROZEN + 1.0)
    assert not made.admits(FROZEN + 1.0), "it moves again"


def test_old_report_of_a_long_queue_does_not_count() -> None:
    made = node()
    given(made)
    made.hear(Signals(waiting=ENGINE_QUEUE), 0.0)
    assert made.admits(STALE_S)


def test_streams_of_a_node_share_one_count_of_tokens() -> None:
    made = node(PROFILE)
    assert made.clock(5.0) == 0.0, "nothing was seen yet"
    made.progress(100, 5.0, 10.0)
    made.progress(200, 5.0, 11.0)
    assert made.clock(11.0) == pytest.approx(40.0) and made.clock(11.5) == pytest.approx(60.0)


def test_aim_comes_nearer_while_streams_are_in_time_and_falls_back_when_some_are_late() -> None:
    made = paced(tpot_s=0.05)
    for _ in range(2_000):
        made.learn_aim(0.045)
    assert made.aim == pytest.approx(AIM_MOST)
    for _ in range(50):
        made.learn_aim(0.06)
    assert made.aim == AIM_LEAST


def test_stream_that_was_far_from_its_pace_says_nothing_of_it() -> None:
    made = paced(tpot_s=0.05)
    made.learn_aim(0.01)
    assert made.aim == AIM


def test_first_tokens_that_come_late_are_allowed_for() -> None:
    made = node()
    for _ in range(200):
        made.slipped(0.1)
    steady = made.slip_s
    assert steady == pytest.approx(0.1, rel=0.5)
    for _ in range(50):
        made.slipped(0.0)
        made.slipped(0.4)
    assert made.slip_s > 0.4
    for _ in range(500):
        made.slipped(-0.1)
    assert made.slip_s == 0.0


def test_no_prompt_joins_the_step_of_one_above_it_that_it_would_make_late() -> None:
    made = node()
    pressing = given(made, 1, tokens=800)
    pressing.priority, pressing.due = 5, 0.2
    below, equal = Flight(call(2), DEFAULT, LANE, 0.0), flying(call(3), DEFAULT, LANE, 0.0, priority=5)
    assert made.spares(below, 1.0, 0.0), "it is not known as urgent"
    made.urgent[1] = pressing
    assert made.spares(below, 0.02, 0.0) and not made.spares(below, 0.1, 0.0)
    assert made.spares(equal, 1.0, 0.0)
    assert made.spares(below, 0.1, 0.3), "it is late in any case"
    started(made, pressing, 0.1)
    assert made.spares(below, 1.0, 0.1)
