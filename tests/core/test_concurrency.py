"""How many requests at once a node is found to do well with, against servers of some kinds in virtual time."""

from __future__ import annotations

from math import inf
from random import Random

import pytest
from benchmarks.plain import Kind, Plain
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.concurrency import BUSY_S, LATE_HELD_S, START, UNSEEN_MOST, Concurrency


def kept_busy(
    kind: Kind, seconds: float, learned: Concurrency | None = None, *, total_s: float = inf, start: float = 0.0
) -> tuple[Concurrency, Plain, float]:
    """The server with as many requests on it as it may have, all the time; and its ends a second over the last half."""
    learned = learned or Concurrency(256)
    server, now, ids = Plain(kind, Random(5)), start, 0
    server.advance_to(start)
    given_at: dict[int, float] = {}
    late_half = 0
    while now < start + seconds:
        while len(given_at) < learned.limit:
            ids += 1
            given_at[ids] = now
            learned.gave(False, total_s, len(given_at))
            server.submit(ids, now)
        now = server.next_at()
        for id in server.advance(now):
            learned.ended(len(given_at), now - given_at.pop(id), now)
            late_half += now > start + seconds / 2
    return learned, server, late_half / (seconds / 2)


@pytest.mark.parametrize(("slots", "seconds"), [(2, 0.5), (8, 0.7), (32, 1.0)])
def test_servers_slots_are_found_with_a_short_line(slots: int, seconds: float) -> None:
    learned, _, per_s = kept_busy(Kind(slots=slots, seconds=seconds), 120.0)
    assert not learned.starting
    assert per_s >= 0.9 * slots / seconds
    assert 0.6 * slots <= learned.centre <= 2.2 * slots


def test_batching_server_is_given_as_much_as_is_worth_it() -> None:
    learned, _, per_s = kept_busy(Kind(slots=1_000, seconds=0.6, spread=0.3, step=0.06), 120.0, total_s=3.0)
    assert per_s >= 0.8 * 18.6
    assert learned.centre / per_s < 3.0


def test_answers_are_kept_well_inside_their_time() -> None:
    learned, _, _ = kept_busy(Kind(slots=1_000, seconds=0.2, spread=0.3, step=0.06), 120.0, total_s=0.5)
    assert learned.recent_s < 0.5


def test_loss_and_return_of_capacity_are_followed() -> None:
    learned, _, _ = kept_busy(Kind(slots=16, seconds=0.5), 60.0)
    learned, _, slow = kept_busy(Kind(slots=4, seconds=0.5), 40.0, learned, start=60.0)
    assert slow >= 0.85 * 8 and learned.centre < 12
    learned, _, fast = kept_busy(Kind(slots=16, seconds=0.5), 60.0, learned, start=101.0)
    assert fast >= 0.85 * 32


def test_node_that_is_not_kept_busy_keeps_its_limit() -> None:
    learned, now = Concurrency(256), 0.0
    for _ in range(1_000):
        now += 1.0
        learned.ended(1, 0.5, now)
    assert learned.limit == START


def test_fast_node_is_not_held_back_for_a_line_of_a_few_milliseconds() -> None:
    learned, _, _ = kept_busy(Kind(slots=1, seconds=0.001, spread=0.2), 60.0)
    assert learned.limit >= 32


def test_first_tokens_open_a_new_node_up_to_a_bound_until_answers_end() -> None:
    learned = Concurrency(256)
    for _ in range(500):
        learned.first_token(0.1, int(learned.limit))
    assert learned.limit == UNSEEN_MOST
    assert Concurrency(8).limit == START


def test_first_tokens_that_take_longer_do_not() -> None:
    learned = Concurrency(256)
    learned.first_token(0.1, int(START))
    for _ in range(50):
        learned.first_token(1.0, int(learned.limit))
    assert learned.limit == START + 1


def test_node_that_says_that_it_is_full_is_believed_for_a_while() -> None:
    learned, _, _ = kept_busy(Kind(slots=16, seconds=0.5), 30.0)
    learned.busy(6, 31.0)
    assert learned.limit == 6
    now = 31.0
    while now < 30.9 + BUSY_S:
        now += 0.08
        learned.ended(6, 0.5, now)
        assert learned.limit <= 6
    learned, _, per_s = kept_busy(Kind(slots=16, seconds=0.5), 60.0, learned, start=now)
    assert per_s >= 0.85 * 32


def test_slow_node_is_expected_to_be_faster_with_less_on_it() -> None:
    learned, _, _ = kept_busy(Kind(slots=4, seconds=0.5), 60.0)
    assert learned.time_s(100) == learned.recent_s
    assert learned.base_s <= learned.time_s(1) < learned.recent_s


def test_nothing_is_known_of_a_new_node() -> None:
    learned = Concurrency(256)
    assert (learned.per_s(), learned.time_s(1)) == (0.0, 0.0)


@given(st.lists(st.tuples(st.integers(0, 300), st.floats(1e-4, 100.0), st.floats(0.0, 5.0), st.sampled_from("eeeefbg")), max_size=300))
def test_whatever_is_learned_the_limit_stays_in_its_bounds(steps: list[tuple[int, float, float, str]]) -> None:
    learned, now = Concurrency(100), 0.0
    for running, took_s, gap_s, step in steps:
        now += gap_s
        if step == "e":
            learned.ended(max(1, running), took_s, now)
        elif step == "f":
            learned.first_token(took_s, running)
        elif step == "g":
            learned.gave(running % 3 == 0, took_s if running % 2 else inf, running)
        else:
            learned.busy(running, now)
        assert 1.0 <= learned.limit <= 100.0 and 1.0 <= learned.centre <= 100.0
        assert learned.recent_s >= 0.0 and learned.per_s() >= 0.0


def test_streams_without_a_time_for_their_whole_answer_are_not_limited_by_it() -> None:
    learned = Concurrency(256)
    for _ in range(100):
        learned.gave(True, inf, 10)
    assert not learned.rules
    for _ in range(10):
        learned.gave(False, inf, 30)
    assert learned.rules and learned.limit == 30
    for _ in range(100):
        learned.gave(True, inf, 10)
    assert not learned.rules and learned.blind == 0.0


def test_first_request_decides() -> None:
    for stream, total_s, rules in ((False, inf, True), (True, 3.0, True), (True, inf, False)):
        learned = Concurrency(256)
        learned.gave(stream, total_s, 1)
        assert learned.rules is rules


def test_first_tokens_later_than_prefill_explains_tell_of_a_line_inside_the_node() -> None:
    learned = Concurrency(256)
    learned.gave(True, inf, 1)
    for _ in range(10):
        learned.late(True, 40, 5.0)
    assert learned.rules and learned.limit == 40
    learned.gave(True, inf, 1, now=5.0 + LATE_HELD_S - 1.0)
    assert learned.rules
    learned.gave(True, inf, 1, now=5.0 + LATE_HELD_S + 1.0)
    assert not learned.rules
