"""Streamed answers: what is sent on, what is noticed, and that neither depends on where the bytes were cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.wire.counts import Usage
from penstock.wire.sse import Relay, error_event, queued_comment

DONE = b"data: [DONE]\n\n"
COUNTS = {"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 3}}


def event(delta: dict[str, Any] | None = None, *, finish: str | None = None, spaced: bool = False, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "logprobs": None, "finish_reason": finish}
    chunk = {"id": "c", "object": "chat.completion.chunk", "choices": [choice], **fields}
    return b"data: " + json.dumps(chunk, separators=None if spaced else (",", ":")).encode() + b"\n\n"


def word(text: str, **fields: Any) -> bytes:
    return event({"content": text}, **fields)


def usage_chunk(**fields: Any) -> bytes:
    return b"data: " + json.dumps({"id": "c", "choices": [], "usage": COUNTS, **fields}).encode() + b"\n\n"


def stream(**fields: Any) -> list[bytes]:
    return [
        event({"role": "assistant", "content": ""}, **fields),
        *(word(text, **fields) for text in ("Hello", " world", ' "quoted"', "\n", "plain", "again", "\\", "é", "end")),
        event({}, finish="stop", **fields),
    ]


def facts(relay: Relay) -> tuple[Any, ...]:
    return relay.tokens, relay.first, relay.finish, relay.usage, relay.done, relay.error, relay.overflow


def run(data: list[bytes], *, asked: bool = False) -> tuple[bytes, Relay]:
    relay = Relay(asked)
    out = b"".join([relay.feed(part) for part in data])
    return out + relay.flush(), relay


@pytest.mark.parametrize("spaced", [False, True])
def test_whole_events_go_on_as_the_same_objects(spaced: bool) -> None:
    relay = Relay(False)
    for part in [*stream(spaced=spaced), b": ping\n\n", DONE, stream()[1] + stream()[2]]:
        assert relay.feed(part) is part
    assert facts(relay) == (11, True, "stop", None, True, False, False)


@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize("key", ["content", "reasoning_content", "reasoning"])
def test_each_event_with_output_is_one_token(key: str, spaced: bool) -> None:
    relay = Relay(False)
    relay.feed(event({"role": "assistant", "content": ""}))
    assert (relay.tokens, relay.first) == (0, False)
    for text in ("a", "b", "", 'x"y', "content", '","content":"z', "c"):
        relay.feed(event({"role": None, key: text, "other": None}, spaced=spaced))
    assert (relay.tokens, relay.first) == (6, True)


def test_tool_calls_and_completions_count_as_output() -> None:
    out, relay = run([event({"tool_calls": [{"index": 0}]}), event({"tool_calls": []}), b'data: {"choices":[{"text":"a"}]}\n\n'])
    assert relay.tokens == 2
    assert out.endswith(b'"a"}]}\n\n')


def test_several_choices_in_one_event_count_each() -> None:
    chunk = {"choices": [{"delta": {"content": "a"}}, {"delta": {"content": "b"}}, {"delta": {"content": ""}}]}
    assert run([b"data: " + json.dumps(chunk).encode() + b"\n\n"])[1].tokens == 2


def test_usage_chunk_is_dropped_unless_asked_for() -> None:
    data = [*stream(), usage_chunk(), DONE]
    out, relay = run(data)
    assert out == b"".join([*stream(), DONE])
    assert relay.usage == Usage(5, 7, 3)
    out, relay = run(data, asked=True)
    assert out == b"".join(data)
    assert relay.usage == Usage(5, 7, 3)


def test_null_usage_is_stripped_unless_asked_for() -> None:
    data = stream(usage=None)
    assert run(data)[0] == b"".join(stream())
    assert run(data, asked=True)[0] == b"".join(data)


def test_null_usage_before_the_text_is_stripped_too() -> None:
    data = [b'data: {"usage": null, "choices":[{"delta":{"content":"%s"}}]}\n\n' % text for text in (b"a", b"b")]
    assert run(data)[0] == b"".join(data).replace(b'"usage": null,', b"")


def test_usage_beside_choices_stays() -> None:
    data = [word("a", usage=COUNTS)]
    out, relay = run(data)
    assert out == data[0]
    assert relay.usage == Usage(5, 7, 3)


def test_text_that_speaks_of_usage_is_left_alone() -> None:
    data = [word(text) for text in (',"usage":null', '"usage": null,', "a", ',"usage":null')]
    assert run(data)[0] == b"".join(data)


def test_error_inside_the_stream_is_noticed_and_sent_on() -> None:
    data = [word("a"), b'data: {"error":{"message":"out of memory"}}\n\n']
    out, relay = run(data)
    assert relay.error
    assert out == b"".join(data)


def test_what_is_no_chunk_goes_through() -> None:
    data = [
        b"data: hello\n\n",
        b"event: x\nid: 1\n\n",
        b'data: {"choices":5}\n\n',
        b"data:\n\n",
        b"\n\n",
        b'data: {"choices":[{"delta":3}]}\n\n',
    ]
    out, relay = run(data)
    assert out == b"".join(data)
    assert relay.tokens == 0


def test_data_over_several_lines_is_one_payload() -> None:
    out, relay = run([b'\xef\xbb\xbf: hi\ndata: {"choices":\ndata: [{"delta":{"content":"a"}}]}\nid: 3\n\n'])
    assert relay.tokens == 1
    assert out.endswith(b"id: 3\n\n")


def test_incomplete_event_is_held_back_until_it_is_whole() -> None:
    relay = Relay(False)
    part = word("abc")
    assert relay.feed(part[:30]) == b""
    assert relay.feed(part[30:-1]) == b""
    assert relay.feed(part[-1:] + part[:5]) == part
    assert relay.feed(part[5:]) == part
    assert relay.tokens == 2


def test_known_form_after_a_held_piece_does_not_overtake_it() -> None:
    data = [word("a"), word("b"), b": com", word("c"), word("d")]
    assert run(data)[0] == b"".join(data)


def test_end_of_stream_completes_the_last_event() -> None:
    out, relay = run([word("a"), b"data: [DONE]\n"])
    assert relay.done
    assert out == word("a") + b"data: [DONE]\n"
    assert run([word("a"), usage_chunk()[:-1]])[0] == word("a")


def test_endless_event_goes_through_unseen_after_the_limit() -> None:
    relay = Relay(False, limit=1_000)
    data = [word("a"), b"data: ", b"x" * 600, b"y" * 600, b"z" * 600, DONE]
    out = [relay.feed(part) for part in data]
    assert out[1:3] == [b"", b""]
    assert b"".join(out) + relay.flush() == b"".join(data)
    assert relay.overflow
    assert not relay.done


def ended(data: list[bytes], line: bytes) -> bytes:
    return b"".join(part.replace(b"\n", line) for part in data)


WHOLE = [b"\xef\xbb\xbf: hello\n\n", *stream(usage=None)[:5], b": ping\n\n", stream()[-1], usage_chunk(), DONE]


@pytest.mark.parametrize("line", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("asked", [False, True])
def test_every_cut_gives_the_same_output(line: bytes, asked: bool) -> None:
    whole = ended(WHOLE, line)
    expected, reference = run([whole], asked=asked)
    assert (expected == whole) is asked
    for at in range(len(whole) + 1):
        out, relay = run([whole[:at], whole[at:]], asked=asked)
        assert out == expected
        assert facts(relay) == facts(reference)
    assert run([whole[at : at + 1] for at in range(len(whole))], asked=asked)[0] == expected


pieces = st.sampled_from(
    [
        word("a"),
        word("bc", usage=None),
        word('"'),
        usage_chunk(),
        DONE,
        b": c\n\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"data: x",
        b"\r\n\r\n",
        b'"usage":null,',
        b'"',
    ]
)


@given(st.lists(pieces, max_size=12), st.sampled_from([b"\n", b"\r\n", b"\r"]), st.booleans(), st.data())
def test_any_cuts_of_any_stream_give_the_same_output(parts: list[bytes], line: bytes, asked: bool, draw: st.DataObject) -> None:
    whole = b"".join(part.replace(b"\n", line) if part.endswith(b"\n\n") else part for part in parts)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(whole)), max_size=20)))
    split = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    expected, reference = run([whole], asked=asked)
    out, relay = run(split, asked=asked)
    assert out == expected
    assert facts(relay) == facts(reference)


def parsed(stream: bytes) -> list[tuple[str, str, str]]:
    """Type, id and data of each event that an EventSource dispatches: WHATWG HTML 9.2.6, read line by line."""
    found: list[tuple[str, str, str]] = []
    kind, last_id, data = "", "", ""
    text = stream.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    for line in text.split("\n")[:-1]:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data += value + "\n"
            elif name == "event":
                kind = value
            elif name == "id":
                last_id = value
        else:
            if data:
                found.append((kind, last_id, data.removesuffix("\n")))
            kind = data = ""
    return found


CHUNKS = st.sampled_from([word("a"), word('"', usage=None), word("é" * 3), usage_chunk(), event({}, finish="stop", usage=None)])
FIELDS = st.sampled_from([b": comment", b"event: message", b"id: 7", b"retry: 100", b"unknown: x", b"data", b"id"])
LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """One event: its data on one line or on several, among other fields."""
    payload = draw(CHUNKS)[6:-2]
    lines = [b"data: " + payload] if draw(st.booleans()) else [b"data: " + part for part in payload.replace(b'],"', b'],\n"').split(b"\n")]
    lines = [*draw(st.lists(FIELDS, max_size=2)), *lines, *draw(st.lists(FIELDS, max_size=1))]
    end = draw(LINE_ENDS)
    return b"".join([line + end for line in lines]) + end


@given(st.lists(blocks(), max_size=6), st.booleans(), st.data())
def test_events_of_every_form_are_seen_and_go_on_wherever_they_are_cut(parts: list[bytes], bom: bool, draw: st.DataObject) -> None:
    whole = (b"\xef\xbb\xbf" if bom else b"") + b"".join([*parts, DONE])
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(whole)), max_size=20)))
    split = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    out, relay = run(split, asked=True)
    assert out == whole
    events = [json.loads(data) for _, _, data in parsed(whole) if data != "[DONE]"]
    assert relay.tokens == sum(bool(event["choices"] and event["choices"][0]["delta"].get("content")) for event in events)
    assert relay.done
    kept = [seen for seen in parsed(whole) if seen[2] == "[DONE]" or json.loads(seen[2])["choices"]]
    less = parsed(run(split)[0])
    assert [seen[2] == "[DONE]" or json.loads(seen[2])["choices"] for seen in less] == [
        seen[2] == "[DONE]" or json.loads(seen[2])["choices"] for seen in kept
    ]


@given(st.lists(st.binary(max_size=30), max_size=6))
def test_any_bytes_are_survived(parts: list[bytes]) -> None:
    assert run(parts)[0] == b"".join(parts)


def test_error_event_is_one_openai_clients_raise_on() -> None:
    sent = error_event(503, "overloaded", "Try\nlater.", 250)
    assert sent.startswith(b"data: {")
    assert sent.endswith(b"}\n\n")
    assert json.loads(sent[6:])["error"]["retry_after_ms"] == 250
    assert sent.count(b"\n") == 2
    assert b"retry_after_ms" not in error_event(502, "failed", "No.")


def test_queue_comment_says_position_and_eta() -> None:
    assert queued_comment(3, 1500) == b": queued position=3 eta_ms=1500\n\n"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (b'{"message": "full", "code": 503}', 503),
        (b'{"message": "full", "code": "429"}', 429),
        (b'{"code": "rate_limit"}', 0),
        (b'{"code": 99999}', 0),
        (b'{"code": true}', 0),
        (b'"text"', 0),
        (b"null", 0),
    ],
)
def test_an_error_inside_a_stream_tells_the_status_it_would_have_had(error: bytes, status: int) -> None:
    relay = Relay(False)
    relay.feed(b'data: {"error": ' + error + b"}\n\n")
    assert (relay.error, relay.status) == (True, status)
