"""The rest of a stream, made to fit its beginning."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from penstock.wire.graft import EVENT_BYTES, Graft

FRAME = {"id": Raw(b'"old"'), "created": Raw(b"1"), "model": Raw(b'"m"'), "choices": Raw(b"[]")}


def graft(again: str = "", left: int = -1, tokens: int = 2, thoughts: int = 0, *, said: bool = True, ended: bool = False) -> Graft:
    return Graft(FRAME, again, left, tokens, thoughts, said=said, ended=ended)


def event(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    choices = [] if "usage" in more and delta is None else [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    body = {"id": "new", "created": 2, "model": "other", "system_fingerprint": "x", "choices": choices} | more
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def sent(data: bytes) -> list[dict[str, Any]]:
    return [msgspec.json.decode(part.removeprefix(b"data: ")) for part in data.split(b"\n\n") if part.startswith(b"data: {")]


def text(data: bytes) -> str:
    return "".join(choice["delta"].get("content", "") for one in sent(data) for choice in one["choices"])


def test_events_carry_the_names_of_the_beginning_and_the_opening_is_left_out() -> None:
    one = graft()
    assert one.feed(event({"role": "assistant", "content": ""})) == b""
    assert not one.shown
    [got] = sent(one.feed(event({"role": "assistant", "content": " x"})))
    assert one.shown
    assert got == {"id": "old", "created": 1, "model": "m", "choices": [{"index": 0, "delta": {"content": " x"}, "finish_reason": None}]}


@given(st.lists(st.integers(0, 600), max_size=6), st.sampled_from([b"\n\n", b"\r\n\r\n"]))
def test_events_may_come_in_any_pieces(cuts: list[int], end: bytes) -> None:
    stream = event({"role": "assistant"}) + b": hello\n\n" + event({"content": " two"}) + event(finish="stop") + b"data: [DONE]\n\n"
    stream = stream.replace(b"\n\n", end)
    one, out = graft(), b""
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, stop in itertools.pairwise(bounds):
        out += one.feed(stream[start:stop])
    assert text(out) == " two"
    assert out.startswith(b": hello\n\n")
    assert out.endswith(b"data: [DONE]\n\n")
    assert one.ended and not one.broken


def test_a_last_event_without_its_blank_line_counts() -> None:
    one = graft()
    assert one.feed(event({"content": "x"})[:-1]) == b""
    assert text(one.flush()) == "x"
    assert graft().flush() == b""


@pytest.mark.parametrize("pieces", [["\n", "\n two"], ["\n\n two"], ["\n\n", " two"]])
def test_what_comes_again_is_taken_off(pieces: list[str]) -> None:
    one = graft("\n\n")
    assert text(b"".join(one.feed(event({"content": piece})) for piece in pieces)) == " two"


def test_what_does_not_come_again_does_not_fit() -> None:
    for piece in (" two", "\n two"):
        one = graft("\n\n")
        assert one.feed(event({"content": piece})) == b""
        assert "repeat" in one.broken
        assert one.feed(event({"content": "x"})) == one.flush() == b""


def test_the_end_of_thoughts_need_not_come_again_once_they_are_over() -> None:
    one = graft("\n", thoughts=2, said=False)
    assert text(one.feed(event({"content": "Yes"}))) == "Yes"
    assert not one.broken
    assert one.feed(event({"reasoning_content": "Hm"})) == b""
    assert "thoughts" in one.broken


def test_thoughts_go_on() -> None:
    one = graft("\n", thoughts=2, said=False)
    [got] = sent(one.feed(event({"reasoning_content": "\nHm"})))
    assert got["choices"][0]["delta"] == {"reasoning_content": "Hm"}


def test_usage_is_that_of_one_answer() -> None:
    one = graft(tokens=5, thoughts=2)
    details = {"prompt_tokens_details": {"cached_tokens": 14}, "completion_tokens_details": {"reasoning_tokens": 1}}
    usage = {"prompt_tokens": 15, "completion_tokens": 3, "total_tokens": 18}
    [got] = sent(one.feed(event(usage=usage | details)))
    assert got["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 8,
        "total_tokens": 18,
        "prompt_tokens_details": {"cached_tokens": 10},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    [odd] = sent(graft().feed(event(usage={"prompt_tokens": None})))
    assert odd["usage"] == {"prompt_tokens": None}
    assert graft().feed(event(usage=None, choices=[])) == b""


def test_a_limit_is_kept() -> None:
    one = graft(left=1)
    out = one.feed(event({"content": " a"}) + event({"content": " b"}) + event(finish="stop"))
    assert text(out) == " a"
    assert sent(out)[-1]["choices"][0]["finish_reason"] == "length"
    [got] = sent(one.feed(event(usage={"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6})))
    assert got["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}


def test_who_knows_the_end_is_told_only_the_usage() -> None:
    one = graft(ended=True)
    out = one.feed(event({"content": " a"}) + event(finish="length") + event(usage={"prompt_tokens": 4, "completion_tokens": 1}))
    assert [one["choices"] for one in sent(out)] == [[]]


def test_a_completions_text_goes_on() -> None:
    one = graft()
    [got] = sent(one.feed(b'data: {"id":"n","choices":[{"index":0,"text":" x","logprobs":null,"finish_reason":null}]}\n\n'))
    assert got["choices"] == [{"index": 0, "text": " x", "logprobs": None, "finish_reason": None}]


@pytest.mark.parametrize(
    "data",
    [
        b"data: {\n\n",
        b"data: []\n\n",
        b'data: {"choices":{}}\n\n',
        b'data: {"error":{"message":"no"}}\n\n',
        event({"tool_calls": [{"index": 0}]}),
        event({"reasoning": "Hm"}),
        b"data: " + b"x" * (EVENT_BYTES + 1),
    ],
)
def test_what_is_no_answer_of_text_does_not_fit(data: bytes) -> None:
    one = graft()
    assert one.feed(data) == b""
    assert one.broken


def test_odd_counts_are_left_alone() -> None:
    usage = {"prompt_tokens": 4, "completion_tokens": 1, "completion_tokens_details": 5, "prompt_tokens_details": 5}
    [got] = sent(graft(thoughts=1).feed(event(usage=usage)))
    assert (got["usage"]["completion_tokens_details"], got["usage"]["prompt_tokens_details"]) == (5, 5)
