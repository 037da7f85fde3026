"""Prompts have the asked size, repeat, and share exactly the blocks they were told to share."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from penstock.load.plan import Shape
from penstock.load.prompts import BLOCK_BYTES, WORD_BYTES, Prompts


def content(body: bytes) -> str:
    text = json.loads(body)["messages"][0]["content"]
    assert isinstance(text, str)
    return text


@given(st.integers(1, 3_000), st.lists(st.integers(0, 1 << 63), max_size=8), st.integers(0, 1 << 20))
def test_content_has_one_word_a_token(tokens: int, blocks: list[int], index: int) -> None:
    text = content(Prompts("m").body(Shape(tokens, 4, tuple(blocks)), index))
    assert len(text) == tokens * WORD_BYTES
    assert len(text.split()) == tokens


def test_body_asks_for_a_stream_of_controlled_length() -> None:
    body = json.loads(Prompts('odd "name"').body(Shape(8, 33), 0))
    assert body["model"] == 'odd "name"'
    assert (body["max_tokens"], body["ignore_eos"], body["stream"]) == (33, True, True)
    assert body["stream_options"] == {"include_usage": True}
    assert "stream" not in json.loads(Prompts("m", stream=False).body(Shape(8, 33), 0))


def test_same_call_gives_the_same_bytes() -> None:
    shape = Shape(2_000, 4, (5, 6))
    assert Prompts("m", seed=1).body(shape, 3) == Prompts("m", seed=1).body(shape, 3)


def test_equal_blocks_are_equal_text_and_others_are_not() -> None:
    prompts = Prompts("m")
    one, two = (content(prompts.body(Shape(1_536, 4, blocks), index)) for index, blocks in enumerate([(1, 2, 3), (1, 2, 4)]))
    assert one[: 2 * BLOCK_BYTES] == two[: 2 * BLOCK_BYTES]
    assert one[2 * BLOCK_BYTES :] != two[2 * BLOCK_BYTES :]


def test_a_part_of_a_block_is_a_prefix_of_it() -> None:
    prompts = Prompts("m")
    long, short = content(prompts.body(Shape(512, 1, (9,)), 0)), content(prompts.body(Shape(200, 1, (9,)), 1))
    assert long.startswith(short[:-1])


def test_calls_without_blocks_share_nothing() -> None:
    prompts = Prompts("m")
    texts = [content(prompts.body(Shape(2_048, 4), index)) for index in range(20)]
    starts = {text[at : at + 16] for text in texts for at in range(0, len(text), BLOCK_BYTES)}
    assert len(starts) == 20 * 4


def test_seeds_keep_runs_apart() -> None:
    assert content(Prompts("m", seed=1).body(Shape(64, 4), 0)) != content(Prompts("m", seed=2).body(Shape(64, 4), 0))
