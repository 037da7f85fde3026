"""Whole answers put together from streams."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.backends.gathered import Gathered, as_stream


def event(body: object) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def gathered(*events: object, cuts: list[int] | None = None) -> Any:
    data, found, last = b"".join(map(event, events)) + b": ping\n\ndata: [DONE]\n\n", Gathered(), 0
    for cut in sorted(cuts or ()):
        found.feed(data[last : cut % len(data)] if cut % len(data) > last else b"")
        last = max(last, cut % len(data))
    found.feed(data[last:])
    return msgspec.json.decode(found.whole())


def delta(index: int = 0, **delta: Any) -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "choices": [{"index": index, "delta": delta}]}


def test_a_request_is_turned_into_one_for_a_stream() -> None:
    asked = as_stream(b'{"model": "m", "seed": 12345678901234567890, "stream": false}')
    assert asked is not None
    assert msgspec.json.decode(asked) == {
        "model": "m",
        "seed": 12345678901234567890,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize("body", [b'{"stream": true}', b"[]", b"{", b"\xff", b""])
def test_a_request_that_streams_or_makes_no_sense_is_left_alone(body: bytes) -> None:
    assert as_stream(body) is None


@given(st.lists(st.integers(0, 10_000), max_size=8))
def test_pieces_may_be_cut_anywhere(cuts: list[int]) -> None:
    answer = gathered(delta(role="assistant", content=None), delta(content="Gr"), delta(content="üß\n\n"), delta(content="e"), cuts=cuts)
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Grüß\n\ne"}
    assert answer["object"] == "chat.completion"


def test_choices_stay_apart() -> None:
    answer = gathered(delta(1, content="b"), delta(0, content="a"), delta(1, content="B"), delta(0, content="A"))
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["aA", "bB"]


def test_tool_calls_are_joined_by_their_index() -> None:
    answer = gathered(
        delta(role="assistant", content=None),
        delta(tool_calls=[{"index": 0, "id": "x", "type": "function", "function": {"name": "f", "arguments": ""}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a"'}}]),
        delta(tool_calls=[{"index": 1, "id": "y", "type": "function", "function": {"name": "g", "arguments": "{}"}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": ": 1}"}}]),
    )
    assert answer["choices"][0]["message"] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "x", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
            {"id": "y", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    }


def test_logprobs_and_texts_of_completions_are_joined() -> None:
    def text(word: str, finish: str | None = None) -> dict[str, Any]:
        return {
            "object": "text_completion",
            "choices": [{"index": 0, "text": word, "logprobs": {"content": [{"token": word}]}, "finish_reason": finish}],
        }

    answer = gathered(text("a"), text("b"), text("", "length") | {"usage": {"completion_tokens": 2}})
    assert answer == {
        "object": "text_completion",
        "choices": [
            {
                "index": 0,
                "text": "ab",
                "logprobs": {"content": [{"token": "a"}, {"token": "b"}, {"token": ""}]},
                "finish_reason": "length",
            }
        ],
        "usage": {"completion_tokens": 2},
    }
