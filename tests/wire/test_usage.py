"""Token counts of whole answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.wire.counts import Usage
from penstock.wire.usage import TAIL_BYTES, usage

COUNTS = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12, "prompt_tokens_details": {"cached_tokens": 3}}


def answer(counts: Any, *, size: int = 10, after: int = 0) -> bytes:
    fields = {"id": "x", "choices": [{"message": {"content": '"usage":{"prompt_tokens":1}' + "x" * size}}], "usage": counts}
    return json.dumps({**fields, **({"more": "y" * after} if after else {})}).encode()


@pytest.mark.parametrize("size", [10, TAIL_BYTES, 100_000])
@pytest.mark.parametrize("after", [0, 100, 2 * TAIL_BYTES])
def test_usage_is_found_wherever_it_stands(size: int, after: int) -> None:
    assert usage(answer(COUNTS, size=size, after=after)) == Usage(5, 7, 3)


def test_deepseeks_name_for_cached_tokens_is_known() -> None:
    assert usage(b'{"usage":{"prompt_tokens":9,"prompt_cache_hit_tokens":4}}') == Usage(9, -1, 4)


@pytest.mark.parametrize("size", [10, 2 * TAIL_BYTES])
@pytest.mark.parametrize("counts", [None, {"prompt_tokens": "many"}, [], 5])
def test_answer_without_usable_counts_gives_none(size: int, counts: Any) -> None:
    assert usage(answer(counts, size=size)) is None


def test_counts_that_cannot_be_are_no_counts() -> None:
    assert usage(b'{"usage":{"prompt_tokens":-5,"completion_tokens":99999999999999}}') == Usage(-1, -1, -1)


@pytest.mark.parametrize("body", [b"", b"null", b"<html>", b'{"usage":', b"[" * 100_000, b"x" * 5_000 + b'"usage":{'])
def test_what_is_no_answer_gives_none(body: bytes) -> None:
    assert usage(body) is None


@given(st.binary(max_size=100))
def test_any_bytes_are_survived(tail: bytes) -> None:
    usage(tail)
    usage(b" " * TAIL_BYTES + b'"usage":' + tail)
