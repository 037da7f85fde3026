"""Prefix blocks and token estimates from raw bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from penstock.config import Limits
from penstock.wire.openai import Call, read
from penstock.wire.prompt import SLICE_BYTES, blocks, tokens


def call(messages: list[dict[str, str]], salt: int = 7, **fields: Any) -> Call:
    return read("chat", json.dumps({"model": "m", "messages": messages, **fields}).encode(), Limits(), salt, {})


@given(st.lists(st.text(max_size=3_000), min_size=1, max_size=4), st.text(max_size=3_000))
def test_a_conversation_that_grows_keeps_its_blocks(turns: list[str], reply: str) -> None:
    messages = [{"role": "user", "content": turn} for turn in turns]
    before, after = call(messages), call([*messages, {"role": "assistant", "content": reply}])
    assert len(before.blocks) == (len(json.dumps(messages)) - 1) // SLICE_BYTES
    assert after.blocks[: len(before.blocks)] == before.blocks


def test_prompt_text_that_grows_keeps_its_blocks() -> None:
    short, long = (blocks(json.dumps("x" * size).encode(), "m", None, 7) for size in (2 * SLICE_BYTES - 1, 3 * SLICE_BYTES))
    assert len(short) == 2
    assert long[:2] == short


def test_a_difference_changes_every_block_after_it() -> None:
    text = b"x" * (5 * SLICE_BYTES)
    other = text[:SLICE_BYTES] + b"y" + text[SLICE_BYTES + 1 :]
    one, two = blocks(text, "m", None, 7), blocks(other, "m", None, 7)
    assert one[0] == two[0]
    assert not set(one[1:]) & set(two[1:])


def test_tenants_models_and_tools_share_no_blocks() -> None:
    messages = [{"role": "user", "content": "x" * 10_000}]
    seen = [
        call(messages),
        call(messages, salt=8),
        call(messages, model="other"),
        call(messages, tools=[{"type": "function"}]),
        call(messages, tools=[{"type": "other"}]),
    ]
    assert len({block for each in seen for block in each.blocks}) == sum(len(each.blocks) for each in seen)


def test_blocks_are_the_same_in_every_process() -> None:
    code = "from penstock.wire.prompt import blocks; print(blocks(b'x' * 5000, 'm', None, 2**64 - 1))"
    there = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == str(blocks(b"x" * 5000, "m", None, 2**64 - 1))


def test_short_prompts_have_no_blocks() -> None:
    assert blocks(b'"short"', "m", None, 7) == ()


def test_tokens_are_a_quarter_of_the_bytes() -> None:
    assert tokens(b'"' + b"x" * 4_000 + b'"', 0) == 1_000
    assert tokens(b'"' + b"x" * 4_000 + b'"', 4_000) == 2_000
    assert tokens(b'"x"', 0) == 1


def test_escaped_and_raw_characters_are_estimated_alike() -> None:
    text = "中文字符" * 500
    raw, escaped = json.dumps(text, ensure_ascii=False).encode(), json.dumps(text).encode()
    assert abs(tokens(raw, 0) - 1_500) < 20
    assert abs(tokens(escaped, 0) - 1_200) < 20


def test_prompts_given_as_tokens_are_counted() -> None:
    assert tokens(b"[1, 2, 3]", 0) == 3
    assert tokens(b"[[1,2],[3]]", 0) == 3
