"""The ledger of a node's KV memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.playbook import call

from penstock.core.classify import DEFAULT
from penstock.core.flight import Flight
from penstock.core.lane import Lane
from penstock.core.memory import PAGE_TOKENS, Memory
from penstock.facts import BLOCK_TOKENS


def flight(id: int) -> Flight:
    return Flight(call(id), DEFAULT, Lane("m", []), 0.0)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(1, 5_000)), max_size=100))
def test_reserved_is_the_sum_of_what_is_held(steps: list[tuple[bool, int, int]]) -> None:
    memory = Memory(10_000)
    for reserve, id, tokens in steps:
        if reserve and memory.fits(tokens):
            memory.reserve(id, tokens)
        else:
            memory.settle(id)
        assert memory.reserved == sum(pages for pages, _ in memory.held.values()) >= memory.asked >= 0
        assert all(tokens % PAGE_TOKENS == 0 for tokens, _ in memory.held.values())


def test_full_memory_fits_no_more_and_settling_makes_room() -> None:
    memory = Memory(1_000)
    memory.reserve(1, 900)
    assert not memory.fits(101) and memory.fits(80)
    memory.settle(1)
    assert memory.reserved == 0 and memory.fits(101)


def test_empty_node_takes_what_can_never_fit() -> None:
    assert Memory(10).fits(1_000)


def test_unknown_capacity_fits_everything() -> None:
    memory = Memory()
    memory.reserve(1, 10**9)
    assert memory.fits(10**9)


def test_reserving_again_replaces() -> None:
    memory = Memory(1_000)
    memory.reserve(1, 160)
    memory.reserve(1, 320)
    assert memory.reserved == 320


def test_block_that_running_requests_share_counts_once_until_the_last_has_ended() -> None:
    memory = Memory(10_000)
    memory.take((1, 2, 3))
    memory.take((1, 2, 4))
    assert memory.reserved == memory.shared == 4 * BLOCK_TOKENS
    assert memory.held_of((1, 2, 5), 3) == 2 and memory.held_of((1, 2, 3), 1) == 1 and memory.held_of((9,), 1) == 0
    memory.give_up((1, 2, 3))
    assert memory.reserved == 3 * BLOCK_TOKENS and memory.held_of((1, 2, 3), 3) == 2
    memory.give_up((1, 2, 4))
    assert memory.reserved == memory.asked == 0 and not memory.blocks


def test_memory_held_back_is_there_for_its_claimant_alone() -> None:
    memory, long = Memory(1_000), flight(1)
    memory.reserve(9, 480)
    memory.hold_back(long, 400)
    assert memory.fits(400, long) and memory.fits(120, flight(2)) and not memory.fits(121, flight(2))
    assert memory.promised() == 880
    memory.let_go()
    assert memory.fits(500, flight(2)) and memory.promised() == 480


def test_claim_survives_a_new_size() -> None:
    memory, long = Memory(1_000), flight(1)
    memory.reserve(9, 16)
    memory.hold_back(long, 400)
    memory.resize(2_000)
    assert memory.fits(1_584, flight(2)) and not memory.fits(1_585, flight(2)) and memory.fits(1_984, long)


def test_rounding_is_what_pages_add() -> None:
    memory = Memory(1_000)
    memory.reserve(1, 17)
    assert memory.reserved - memory.asked == 15
    memory.settle(1)
    assert memory.asked == 0
