"""A node's memory where prompts share blocks: counted once for all that hold them, as soon as that matters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.core.test_fleet import LANE, node
from tests.playbook import call, flying

from penstock.core.classify import DEFAULT
from penstock.core.fleet import Node
from penstock.core.flight import Flight
from penstock.core.memory import PAGE_TOKENS
from penstock.facts import BLOCK_TOKENS


def holding(made: Node, id: int, blocks: tuple[int, ...]) -> Flight:
    """A prompt of these blocks and 88 tokens more, given to the node with room for 100 tokens of answer."""
    tokens = BLOCK_TOKENS * len(blocks) + 88
    flight = flying(call(id, tokens=tokens, blocks=blocks), DEFAULT, LANE, 0.0, uncached=tokens, forwarded=0.0, quota=100)
    made.give(flight, tokens + 100, 0.0)
    return flight


def test_blocks_that_many_hold_are_counted_once_for_all_of_them_when_memory_becomes_tight() -> None:
    made, blocks = node(kv_tokens=40 * BLOCK_TOKENS), tuple(range(8))
    before = [holding(made, id, blocks) for id in range(3)]
    assert made.memory.tight and made.memory.whole == 3
    flights = [*before, holding(made, 3, blocks)]
    assert made.memory.whole == 0 and all(flight.shares for flight in flights)
    assert made.memory.shared == 8 * BLOCK_TOKENS
    assert made.memory.reserved <= 8 * BLOCK_TOKENS + 4 * (88 + 100 + PAGE_TOKENS)
    later = holding(made, 4, (9,))
    assert not later.shares and made.memory.whole == 1
    for flight in (*flights, later):
        made.take_back(flight, 1.0)
    assert (made.memory.reserved, made.memory.whole, made.memory.blocks) == (0, 0, {})


@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=40))
def test_whatever_comes_and_goes_memory_is_whole_in_the_end(steps: list[tuple[int, bool]]) -> None:
    made, there = node(kv_tokens=30 * BLOCK_TOKENS), list[Flight]()
    for number, (length, ends) in enumerate(steps):
        there.append(holding(made, number, tuple(range(length))))
        if ends:
            made.take_back(there.pop(0), 0.0)
        assert made.memory.whole == sum(not flight.shares for flight in there)
        assert made.memory.shared == BLOCK_TOKENS * max((len(one.request.blocks) for one in there if one.shares), default=0)
    for flight in there:
        made.take_back(flight, 0.0)
    assert (made.memory.reserved, made.memory.asked, made.memory.whole, made.memory.blocks) == (0, 0, 0, {})
