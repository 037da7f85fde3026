from __future__ import annotations

import pytest

from penstock.engine.memory import Memory, memory
from penstock.engine.sequence import Run, Sequence
from penstock.facts import Profile


def pool(cache_tokens: int, kv_tokens: int = 4_096) -> Memory:
    return memory(
        Profile(name="p", source="p", c0_s=1, c1_s=0, c2_s=0, c3_s=0, kv_tokens=kv_tokens, cache_tokens=cache_tokens, page_tokens=64)
    )


def run(prompt: int, *blocks: int) -> Run:
    return Run(Sequence(1, prompt, 10, blocks), 1)


def compute(of: Memory, one: Run) -> None:
    before, one.left = one.total - one.left, 0
    of.computed(one, before)


@pytest.mark.parametrize("cache_tokens", [0, 2_048])
def test_pages_taken_are_given_back(cache_tokens: int) -> None:
    of, one = pool(cache_tokens), run(1_000, 7)
    assert of.admit(one, 0)
    assert of.available == of.pages - 16
    compute(of, one)
    of.grow(2)
    assert of.available == of.pages - 18
    of.release(one, 1_000 + 128)
    assert of.available == of.pages


@pytest.mark.parametrize("cache_tokens", [0, 2_048])
def test_a_prompt_without_room_for_it_and_the_reserve_stays_out(cache_tokens: int) -> None:
    of = pool(cache_tokens)
    assert not of.admit(run(4_000), 2)
    assert of.available == of.pages
    assert of.admit(run(4_000), 1)


@pytest.mark.parametrize("cache_tokens", [0, 2_048])
def test_only_leading_blocks_hit_and_never_the_whole_prompt(cache_tokens: int) -> None:
    of = pool(cache_tokens)
    first = run(1_536, 1, 2, 3)
    of.admit(first, 0)
    compute(of, first)
    of.release(first, 1_536)
    for again, cached in ((run(1_536, 1, 2, 3), 1_024), (run(1_537, 1, 2, 3), 1_536), (run(1_537, 9, 2, 3), 0), (run(1_537, 1, 9, 3), 512)):
        of.admit(again, 0)
        assert (again.cached, again.left) == (cached, again.total - cached)
        of.release(again, again.total)
    assert of.available == of.pages


@pytest.mark.parametrize("cache_tokens", [0, 2_048])
@pytest.mark.parametrize(("blocks", "cached"), [((1, 2), 512), ((3, 4), 1_024), ((5,), 512)])
def test_the_tail_of_the_least_recently_used_prompt_goes_first(cache_tokens: int, blocks: tuple[int, ...], cached: int) -> None:
    of = pool(cache_tokens, kv_tokens=2_048)
    for prompt in ((1, 2), (3, 4), (5,)):
        one = run(512 * len(prompt), *prompt)
        of.admit(one, 0)
        compute(of, one)
        of.release(one, one.total)
    look = run(1_025, *blocks)
    of.admit(look, 0)
    assert look.cached == cached


def test_equal_blocks_of_running_sequences_take_their_pages_once() -> None:
    of = pool(0)
    one, other, twin = run(1_100, 1, 2), run(1_100, 1, 2), run(1_100, 1, 2)
    of.admit(one, 0)
    of.admit(twin, 0)  # nothing to share yet
    compute(of, one)
    compute(of, twin)
    assert of.available == of.pages - 36
    of.admit(other, 0)
    assert of.available == of.pages - 38
    for done in (one, other, twin):
        of.release(done, 1_100)
    assert of.available == of.pages
