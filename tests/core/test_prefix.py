"""The prefix index, against a plain model of sets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.prefix import PrefixIndex

CHAINS = [tuple(group * 10 + depth for depth in range(length)) for group in range(4) for length in (1, 3, 5)]


def index(*limits: int) -> PrefixIndex:
    made = PrefixIndex()
    for node, limit in enumerate(limits):
        made.add_node(node, limit)
    return made


def held(made: PrefixIndex, node: int, blocks: tuple[int, ...]) -> int:
    count = 0
    for block in blocks:
        if block not in made.recent[node]:
            break
        count += 1
    return count


@given(st.lists(st.tuples(st.sampled_from("insert clear correct".split()), st.integers(0, 2), st.sampled_from(CHAINS)), max_size=80))
def test_match_agrees_with_each_node_s_set_and_nothing_grows(steps: list[tuple[str, int, tuple[int, ...]]]) -> None:
    made = index(4, 6, 100)
    for step, node, blocks in steps:
        if step == "insert":
            made.insert(node, blocks)
        elif step == "clear":
            made.clear(node)
        else:
            made.correct(node, len(blocks), 0)
        for chain in CHAINS:
            assert made.match(chain) == {n: count for n in range(3) if (count := held(made, n, chain))}
        for n in range(3):
            assert len(made.recent[n]) <= made.limits[n] <= made.most[n]
        assert made.holders == {
            block: sum(1 << n for n in range(3) if block in made.recent[n]) for block in set().union(*made.recent.values())
        }


def test_prefix_outlives_its_continuation() -> None:
    made = index(3)
    made.insert(0, (1, 2, 3))
    made.insert(0, (9,))
    assert made.match((1, 2, 3)) == {0: 2}


def test_empty_prompt_matches_nothing() -> None:
    assert index(3).match(()) == {}


def test_limit_shrinks_when_less_was_cached_than_believed_and_grows_back() -> None:
    made = index(1_000)
    made.correct(0, 5, 1)
    assert made.limits[0] == 990
    for _ in range(20):
        made.correct(0, 5, 5)
    assert made.limits[0] == 1_000
