"""The ledger of a node's KV memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.memory import PAGE_TOKENS, Memory


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
