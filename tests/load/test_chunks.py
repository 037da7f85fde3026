"""Streams are read alike however the network cuts them."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from penstock.load.chunks import Chunks

ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
PIECE = b'data: {"choices":[{"delta":{"content":" word"}}]}\n\n'
SPACED = b'data: {"choices": [{"delta": {"content": "caf\\u00e9 \\"quoted\\""}}]}\n\n'
THOUGHT = b'data: {"choices":[{"delta":{"reasoning_content":"hm","content":null}}]}\n\n'
FORGED = rb'data: {"choices":[{"delta":{"content":"say \"content\":\"x\" [DONE]"}}]}' + b"\n\n"
FINISH = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}}\n\n'
QUEUED = b": queued position=3 eta_ms=1200\n\n"
DONE = b"data: [DONE]\n\n"
WHOLE = QUEUED + ROLE + PIECE + SPACED + THOUGHT + FORGED + PIECE + FINISH + USAGE + DONE


def test_whole_stream_is_counted() -> None:
    chunks = Chunks()
    assert chunks.feed(WHOLE) == 5
    assert (chunks.pieces, chunks.usage_tokens, chunks.comments, chunks.done, chunks.error) == (5, 5, 1, True, None)


@given(st.lists(st.integers(0, len(WHOLE)), max_size=12), st.booleans())
def test_cuts_of_the_network_change_nothing(cuts: list[int], carriage_returns: bool) -> None:
    whole = WHOLE.replace(b"\n", b"\r\n") if carriage_returns else WHOLE
    places = [0, *sorted(cuts), len(whole)]
    chunks = Chunks()
    found = sum(chunks.feed(whole[start:end]) for start, end in pairwise(places))
    assert (found, chunks.pieces, chunks.usage_tokens, chunks.comments, chunks.done, chunks.error) == (5, 5, 5, 1, True, None)


def test_role_and_finish_are_no_content() -> None:
    chunks = Chunks()
    assert chunks.feed(ROLE + FINISH) == 0


def test_done_inside_text_does_not_end_the_stream() -> None:
    chunks = Chunks()
    assert chunks.feed(FORGED) == 1
    assert not chunks.done


def test_unfinished_event_waits_for_its_end() -> None:
    chunks = Chunks()
    assert chunks.feed(PIECE[:-1]) == 0
    assert chunks.feed(b"\n") == 1


def test_typed_error_keeps_its_message_and_wait() -> None:
    inside, beside = Chunks(), Chunks()
    inside.feed(b'data: {"error":{"message":"full","code":"overloaded","retry_after_ms":1500}}\n\n')
    beside.feed(b'data: {"error":{"message":"full"},"retry_after_ms":1500}\n\n')
    for chunks in (inside, beside):
        assert chunks.error is not None
        assert (chunks.error.message, chunks.error.retry_after_ms) == ("full", 1500)


def test_unreadable_event_is_an_error() -> None:
    chunks = Chunks()
    chunks.feed(b"data: {broken\n\n")
    assert chunks.error is not None
    assert "unreadable event" in chunks.error.message


def test_completions_and_tool_calls_are_content() -> None:
    chunks = Chunks()
    assert chunks.feed(b'data: {"choices":[{"text":"a"}]}\n\n') == 1
    assert chunks.feed(b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{"}}]}}]}\n\n') == 1
