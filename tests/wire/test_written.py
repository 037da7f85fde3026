"""What a stream's events say, however they came."""

from __future__ import annotations

import itertools
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.wire.written import Written


def event(key: str = "content", text: object = "x", end: str = "\n\n", spaced: bool = False, finish: str | None = None) -> bytes:
    body = {"id": "a", "model": "content", "choices": [{"index": 0, "delta": {key: text}, "finish_reason": finish}]}
    data = json.dumps(body) if spaced else json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    return f"data: {data}{end}".encode()


texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=30)


@given(texts, texts, st.lists(st.integers(0, 60), max_size=8), st.sampled_from(["\n\n", "\r\n\r\n"]), st.booleans())
def test_texts_are_told_whatever_the_pieces(thoughts: list[str], content: list[str], cuts: list[int], end: str, spaced: bool) -> None:
    events = [event("reasoning_content", one, end, spaced) for one in thoughts] + [event("content", one, end, spaced) for one in content]
    written = Written()
    bounds = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    for start, stop in itertools.pairwise(bounds):
        written.add(b"".join(events[start:stop]))
    assert written.texts() == ("".join(thoughts), "".join(content))
    assert written.tokens == sum(map(bool, thoughts + content))
    assert written.thought_tokens == sum(map(bool, thoughts))


def test_the_first_events_fields_are_kept() -> None:
    written = Written()
    written.add(b": a comment\n\n" + event() + b"data: [DONE]\n\n")
    assert msgspec.json.decode(written.frame["id"]) == "a"
    assert written.texts() == ("", "x")


def test_a_completions_text_is_content() -> None:
    written = Written()
    written.add(b'data: {"choices":[{"index":0,"text":"One"}]}\n\ndata: {"choices":[{"index":0,"text":" two"}]}\n\n')
    assert written.texts() == ("", "One two")


@pytest.mark.parametrize(
    "odd",
    [
        event("tool_calls", [{"index": 0}]),
        event("reasoning", "Hm"),
        event("refusal", "No"),
        event("content", ["x"]),
        event("content", "x") + event("reasoning_content", "Hm"),
        b"data: {\n\n",
        b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n',
    ],
)
def test_more_than_text_cannot_be_told(odd: bytes) -> None:
    written = Written()
    written.add(odd)
    assert written.texts() is None


@pytest.mark.parametrize(
    "odd", [b'data: {"choices":[{"delta":{"content" :"x"}}]}\n\n', b'data: {"choices":[{"delta":{"content":"x"}}],\ndata: "a":1}\n\n']
)
def test_events_of_other_forms_are_read_one_by_one(odd: bytes) -> None:
    written = Written()
    written.add(odd * 3)
    assert (written.texts(), written.tokens) == (("", "xxx"), 3)


def test_text_that_is_no_json_cannot_be_told() -> None:
    written = Written()
    written.add(event("content", "x"))
    written.add(event("content", "y").replace(b"y", b"\\q"))
    assert written.texts() is None
