"""One pool: a prefix is found from its second use on, as long as there is room."""

from __future__ import annotations

from tests.sim.fleet import profile

from penstock.facts import BLOCK_TOKENS
from penstock.sim.arrival import Arrival
from penstock.sim.pool import cache_tokens, pool_hit

ROOM = 100 * BLOCK_TOKENS


def prompt(*blocks: int, own: int = 10) -> Arrival:
    return Arrival(0.0, len(blocks) * BLOCK_TOKENS + own, 1, blocks)


def test_the_second_use_of_a_prefix_is_a_hit_up_to_the_first_other_block() -> None:
    assert pool_hit([prompt(1, 2, 3), prompt(1, 2, 4, 3)], ROOM) == round(2 * BLOCK_TOKENS / (7 * BLOCK_TOKENS + 20), 6)


def test_the_last_token_of_a_prompt_is_never_found() -> None:
    whole = prompt(1, 2, own=0)
    assert pool_hit([whole, whole], ROOM) == 0.25


def test_the_least_recently_used_prefix_leaves_first_and_its_tail_before_its_head() -> None:
    used = [prompt(1, 2), prompt(3), prompt(1, 2), prompt(4)]
    assert pool_hit([*used, prompt(1, 2)], 3 * BLOCK_TOKENS) == pool_hit([*used, prompt(1, 2)], ROOM)
    tailless = pool_hit([prompt(1, 2), prompt(3), prompt(1, 2)], 2 * BLOCK_TOKENS)
    assert tailless == round(BLOCK_TOKENS / (5 * BLOCK_TOKENS + 30), 6)


def test_nothing_asked_is_nothing_measured() -> None:
    assert pool_hit([], ROOM) is None


def test_a_fleets_pool_is_its_caches_or_where_those_live() -> None:
    assert cache_tokens([profile(cache_tokens=7_000), profile(kv_tokens=20_000)]) == 27_000
