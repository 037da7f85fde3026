"""What models think, in one form whatever the engine: in streams, cut anywhere, and in whole answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.wire.reasoning import KEPT_BYTES, STRANDS, WATCHED, Habit, Thoughts, whole
from penstock.wire.sse import Relay
from penstock.wire.think import Splitter

DONE = b"data: [DONE]\n\n"
R1 = "deepseek-r1"


def event(delta: dict[str, Any], *, index: int = 0, finish: str | None = None, ascii: bool = True, **fields: Any) -> bytes:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    chunk = {"id": "c", "object": "chat.completion.chunk", "choices": [choice], **fields}
    return b"data: " + json.dumps(chunk, separators=(",", ":"), ensure_ascii=ascii).encode() + b"\n\n"


def content(*texts: str, finish: str = "stop", **more: Any) -> list[bytes]:
    first = event({"role": "assistant", "content": ""}, **more)
    return [first, *(event({"content": text}, **more) for text in texts), event({}, finish=finish, **more), DONE]


def go(parts: list[bytes], thoughts: Thoughts | None, asked: bool = False) -> tuple[bytes, Relay]:
    relay = Relay(asked, thoughts=thoughts)
    out = b"".join([relay.feed(part) for part in parts])
    return out + relay.flush(), relay


def deltas(out: bytes) -> list[dict[str, Any]]:
    """What an SSE client sees."""
    found = []
    for block in out.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n"):
        data = b"\n".join(line[5:] for line in block.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.startswith(b"data:"))
        if data and data.strip() != b"[DONE]":
            found += [(choice.get("delta") or {}) | {"finish": choice.get("finish_reason")} for choice in json.loads(data)["choices"]]
    return found


def text(out: bytes, key: str) -> str:
    return "".join(delta.get(key) or "" for delta in deltas(out))


def both(out: bytes) -> tuple[str, str]:
    return text(out, "reasoning_content"), text(out, "content")


def normalised(parts: list[bytes], model: str = "m", thinks: bool | None = None, habit: Habit | None = None, **more: Any) -> bytes:
    return go(parts, Thoughts(habit or Habit(model, thinks), **more))[0]


def test_deepseeks_own_form_goes_on_as_the_same_objects() -> None:
    parts = [
        event({"role": "assistant", "content": "", "reasoning_content": None}),
        *(event({"content": None, "reasoning_content": word}) for word in ("Hm", " so", ' "x"', " yes")),
        *(event({"content": word, "reasoning_content": None}) for word in ("It", " is", "\n", " <think>", " so")),
        event({"content": ""}, finish="stop"),
        DONE,
    ]
    relay = Relay(False, thoughts=Thoughts(Habit(R1)))
    assert all(relay.feed(part) is part for part in parts)
    assert relay.tokens == 9


def test_a_stream_without_thoughts_goes_on_as_the_same_objects() -> None:
    relay = Relay(False, thoughts=Thoughts(Habit("llama")))
    parts = content("Hello", " <", "think", "> </think>", ' "a"', "b")
    assert all(relay.feed(part) is part for part in parts)


def test_tags_in_the_content_become_a_field() -> None:
    out = normalised(content("<think>", "\n", "Hm", " so", "\n", "</think>", "\n\n", "It", " is", " <think>x</think>"))
    assert both(out) == ("Hm so\n", "It is <think>x</think>")
    assert out.endswith(DONE)
    assert not any(delta.get("content") and delta.get("reasoning_content") for delta in deltas(out))


def test_tags_in_one_piece_with_both_texts_give_two_events() -> None:
    out = normalised(content("<think>Hm</think>It is"))
    assert [delta for delta in deltas(out) if delta.get("reasoning_content")] == [{"reasoning_content": "Hm", "finish": None}]
    assert both(out) == ("Hm", "It is")


def test_tags_written_with_escapes_are_tags() -> None:
    parts = [part.replace(b"<", b"\\u003c").replace(b">", b"\\u003e") for part in content("<think>", "a", "b", "</th", "ink>", "c")]
    assert both(normalised(parts)) == ("ab", "c")


@pytest.mark.parametrize("name", ["reasoning", "thinking"])
@pytest.mark.parametrize("space", [",:", ", :"])
def test_another_engines_field_gets_deepseeks_name(name: str, space: str) -> None:
    parts = [
        event({"role": "assistant", "content": ""}),
        *(event({name: word}) for word in ("Hm", " so", '"', " é")),
        *content("It", " is"),
    ]
    if space == ", :":
        parts = [b"data: " + json.dumps(json.loads(part[6:])).encode() + b"\n\n" if part != DONE else part for part in parts]
    out = normalised(parts)
    assert both(out) == ('Hm so" é', "It is")
    assert out == b"".join(parts).replace(b'"%s"' % name.encode(), b'"reasoning_content"')


def test_both_names_at_once_stay() -> None:
    part = event({"reasoning": "Hm", "reasoning_content": "Hm"})
    assert normalised([part]) == part


@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_field_of_deepseeks_name_gives_way(empty: str | None) -> None:
    parts = [event({"reasoning": word, "reasoning_content": empty}) for word in ("Hm", " so", ".")]
    assert both(normalised([*parts, *content("It is")])) == ("Hm so.", "It is")
    assert both(normalised([event({"reasoning_content": empty, "reasoning": "Hm"})] * 2)) == ("HmHm", "")


def test_a_name_inside_a_text_is_left_alone() -> None:
    out = normalised([event({"content": '"reasoning":"x"'}), *content("a")])
    assert text(out, "content") == '"reasoning":"x"a'


def test_an_answer_that_begins_inside_is_known_by_the_models_name() -> None:
    assert both(normalised(content("Hm", " so", "</think>", "\n\n", "It is"), R1)) == ("Hm so", "It is")


def test_a_model_told_not_to_think_does_not_begin_inside() -> None:
    assert both(normalised(content("It", " is"), R1, thinks=False)) == ("", "It is")


def test_another_model_is_known_from_the_answer_before() -> None:
    habit = Habit("my-model")
    first = normalised(content("Hm", "\n", "</think>", "\n\n", "It is"), habit=habit)
    assert both(first) == ("", "Hm\n</think>\n\nIt is")
    assert both(normalised(content("Hm", "\n", "</th", "ink>", "\n\n", "It is"), habit=habit)) == ("Hm\n", "It is")


def test_a_tag_that_is_spoken_of_teaches_nothing() -> None:
    habit = Habit("my-model")
    normalised(content("The tag ", "`</think>`", " closes."), habit=habit)
    assert not habit.assumed


def test_only_some_answers_are_watched() -> None:
    habit = Habit("llama")
    for _ in range(WATCHED):
        assert not go(content("a", "b"), thoughts := Thoughts(habit))[1].overflow
        assert not thoughts.settled
    go(content("a", "b"), thoughts := Thoughts(habit))
    assert thoughts.settled


def test_an_answer_taken_for_thoughts_is_given_at_its_end_and_teaches() -> None:
    habit = Habit(R1)
    out = normalised(content("It", " is"), habit=habit)
    assert both(out) == ("It is", "It is")
    assert both(normalised(content("It", " is"), habit=habit)) == ("", "It is")


@pytest.mark.parametrize("finish", ["length", "tool_calls"])
def test_thoughts_that_are_cut_off_stay_thoughts(finish: str) -> None:
    habit = Habit(R1)
    assert both(normalised(content("Hm", " so", "</thi", finish=finish), habit=habit)) == ("Hm so</thi", "")
    assert habit.assumed


def test_an_engine_that_takes_thoughts_out_itself_teaches() -> None:
    habit = Habit(R1)
    normalised([event({"reasoning_content": "Hm"}), *content("It")], habit=habit)
    assert both(normalised(content("It", " is"), habit=habit)) == ("", "It is")


def test_an_engines_thoughts_without_an_answer_stay_thoughts() -> None:
    parts = [event({"reasoning_content": "Hm"}), event({}, finish="stop"), DONE]
    assert normalised(parts, R1, collect=True) == b"".join(parts)


def test_structured_answers_do_not_begin_inside() -> None:
    assert both(normalised(content("{", "}"), R1, inside=False)) == ("", "{}")


def test_what_waits_comes_out_when_the_stream_ends_without_a_reason() -> None:
    for end in ([DONE], []):
        out = normalised([event({"content": "<think>a</thi"}), *end])
        assert both(out) == ("a</thi", "")
        assert out.endswith(b"".join(end))
    assert both(normalised([event({"content": " <thi"})])) == ("", " <thi")


def test_what_waits_comes_before_a_tool_call() -> None:
    call = [{"index": 0, "id": "call_1", "function": {"name": "f", "arguments": "{}"}}]
    out = normalised([event({"content": "\n"}), event({"tool_calls": call}), event({}, finish="tool_calls"), DONE])
    assert text(out, "content") == "\n"
    assert [delta["tool_calls"] for delta in deltas(out) if "tool_calls" in delta] == [call]


def test_choices_are_apart() -> None:
    parts = [event({"content": word}, index=index) for word in ("<think>", "Hm", "</think>", "It") for index in (0, 1)]
    out = normalised([*parts, event({}, index=0, finish="stop"), event({}, index=1, finish="stop"), DONE])
    assert both(out) == ("HmHm", "ItIt")


def test_tokens_are_counted_as_the_engine_gave_them() -> None:
    parts = content("<think>", "a", "b", "c", "</think>", "d", "e")
    assert go(parts, Thoughts(Habit()))[1].tokens == go(parts, None)[1].tokens == 7


def test_other_lines_of_an_event_stay() -> None:
    out = normalised([b": hi\nid: 3\nevent: message\n" + event({"content": "<think>a"}), *content("</think>b")])
    assert out.startswith(b": hi\nid: 3\nevent: message\ndata: {")
    assert both(out) == ("a", "b")


def test_thoughts_that_are_not_in_a_string_are_left_alone() -> None:
    parts = [event({"reasoning": {"a": 1}, "content": ["x"]}), event({"content": 5}), *content("a")]
    assert normalised(parts) == b"".join(parts)


def test_not_normalised_is_not_touched_but_collected() -> None:
    parts = [event({"reasoning": "Hm"}), event({"content": "<think>x</think>"}), *_call("f", "{}")]
    out, relay = go(parts, Thoughts(Habit(R1), normalise=False, collect=True))
    assert out == b"".join(parts)
    assert relay.thoughts is not None
    [(calls, said)] = relay.thoughts.remembered()
    assert (calls[0].id, said) == ("call_1", "Hm")


def _call(name: str, arguments: str) -> list[bytes]:
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}}
    parts = [{"index": 0, "function": {"arguments": part}} for part in arguments]
    return [*(event({"tool_calls": [part]}) for part in (first, *parts)), event({}, finish="tool_calls"), DONE]


@pytest.mark.parametrize("parts", [[event({"reasoning_content": "Hm"})] * 3, content("<think>Hm", "HmHm", "</think>")[:-2]])
def test_thoughts_before_a_tool_call_are_collected(parts: list[bytes]) -> None:
    thoughts = Thoughts(Habit(), collect=True)
    go([*parts, *_call("weather", '{"city":"Ulm"}')], thoughts)
    [(calls, said)] = thoughts.remembered()
    assert said == "HmHmHm"
    assert calls[0].function is not None
    assert (calls[0].id, calls[0].function.name, calls[0].function.arguments) == ("call_1", "weather", '{"city":"Ulm"}')


def test_endless_thoughts_are_not_collected() -> None:
    thoughts = Thoughts(Habit(), collect=True)
    go([*[event({"reasoning_content": "x" * 10_000})] * (KEPT_BYTES // 10_000 + 1), *_call("f", "{}")], thoughts)
    assert thoughts.remembered() == []


# --- every cut

TEXTS = st.lists(
    st.sampled_from(["<think>", "</think>", "<", "</", "th", "ink>", ">", "\n", "a", "b c", 'q"q', "\\", "é", "😀", "</thi", "nk>"]),
    max_size=10,
)


@settings(deadline=None)
@given(
    TEXTS,
    st.booleans(),
    st.sampled_from(["m", R1]),
    st.sampled_from(["stop", "length"]),
    st.booleans(),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.data(),
)
def test_any_cuts_give_the_same(
    texts: list[str], ascii: bool, model: str, finish: str, field: bool, line: bytes, draw: st.DataObject
) -> None:
    thought = [event({"reasoning": "Hm"}, usage=None)] * 3 if field else []
    whole_stream = b"".join([*thought, *content(*texts, finish=finish, ascii=ascii, usage=None)]).replace(b"\n\n", line * 2)
    expected = normalised([whole_stream], model)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(whole_stream)), max_size=12)))
    parts = [whole_stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole_stream)], strict=True)]
    assert normalised(parts, model) == expected
    assert normalised([whole_stream[at : at + 1] for at in range(len(whole_stream))], model) == expected


@settings(deadline=None)
@given(TEXTS, st.sampled_from(["m", R1]))
def test_any_events_give_what_the_whole_text_gives(texts: list[str], model: str) -> None:
    habit = Habit(model)
    splitter = Splitter(habit.assumed)
    (thought, answer), (last, rest) = splitter.feed("".join(texts)), splitter.end()
    out = normalised(content(*texts, finish="length"), habit=habit)
    assert both(out) == (thought + last, answer + rest)


def test_every_cut_of_one_stream() -> None:
    stream = b"".join([b"\xef\xbb\xbf: hello\r\n\r\n", *content("<think>", "Hm", " so", "</think>", "\n", "It", " is"), b": bye\n\n"])
    expected = normalised([stream])
    assert both(expected) == ("Hm so", "It is")
    for at in range(len(stream) + 1):
        assert normalised([stream[:at], stream[at:]]) == expected


@given(st.lists(st.binary(max_size=30), max_size=6))
def test_any_bytes_are_survived(parts: list[bytes]) -> None:
    assert normalised(parts, R1) == b"".join(parts)


def chunk_of(*choices: Any, **fields: Any) -> bytes:
    return b"data: " + json.dumps({"id": "c", "choices": choices, **fields}).encode() + b"\n\n"


VALUES = st.sampled_from(["", "a", "<think>", "</think>", "b<", None, 5, ["x"], {"y": 1}])
DELTAS = st.none() | st.dictionaries(
    st.sampled_from(["content", "reasoning", "reasoning_content", "thinking", "role", "tool_calls"]), VALUES
)
CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "index": st.sampled_from([0, 1, None, -1, 10**30]),
        "delta": DELTAS,
        "finish_reason": st.sampled_from([None, "stop", "length"]),
    },
)


@settings(deadline=None)
@given(st.lists(st.lists(CHOICES, max_size=3), max_size=8), st.sampled_from(["m", R1]), st.booleans(), st.data())
def test_chunks_of_any_make_are_survived_wherever_they_are_cut(
    chunks: list[list[Any]], model: str, collect: bool, draw: st.DataObject
) -> None:
    whole_stream = b"".join([*(chunk_of(*choices) for choices in chunks), DONE])
    expected = normalised([whole_stream], model, collect=collect)
    assert expected.endswith(DONE)
    ends = [choice.get("finish_reason") for choices in chunks for choice in choices]
    assert [delta["finish"] for delta in deltas(expected) if delta["finish"]] == [end for end in ends if end]
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(whole_stream)), max_size=8)))
    parts = [whole_stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole_stream)], strict=True)]
    assert normalised(parts, model, collect=collect) == expected


def test_no_end_of_choices_is_looked_at() -> None:
    parts = [event({"content": "<think>"}, index=index) for index in range(STRANDS + 1)]
    assert normalised(parts) == parts[-1]
    assert Thoughts(Habit()).form(0, b"content") is None


def test_an_event_without_a_delta_ends_a_choice() -> None:
    out = normalised([event({"content": "<think>a</th"}), chunk_of({"index": 0, "delta": None, "finish_reason": "stop"})])
    assert both(out) == ("a</th", "")


def test_what_cannot_be_written_again_goes_on_as_it_came() -> None:
    part = event({"content": "<think>a"}).replace(b'"id"', b'"\xff"')
    assert normalised([part]) == part
    for key in (b"content", b"reasoning"):
        part = event({key.decode(): "<think>a"}).replace(b">a", b">\xff")
        assert normalised([part]) == part


def test_an_endless_event_lets_go_of_what_was_kept() -> None:
    thoughts = Thoughts(Habit())
    relay = Relay(False, limit=1_000, thoughts=thoughts)
    out = b"".join([relay.feed(event({"content": "<think>a</th"})), relay.feed(b"data: " + b"x" * 2_000)])
    assert text(out[: out.index(b"data: x")], "reasoning_content") == "a</th"
    assert out.endswith(b"data: " + b"x" * 2_000)


# --- whole answers


def answer(message: dict[str, Any], finish: str = "stop", **fields: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return json.dumps({"id": "c", "choices": [choice], "usage": {"completion_tokens": 7}, **fields}).encode()


def message(body: bytes, model: str = "m", thinks: bool | None = None, habit: Habit | None = None) -> tuple[Any, Any]:
    found = json.loads(whole(body, habit or Habit(model, thinks))[0])
    assert found["usage"] == {"completion_tokens": 7}
    said = found["choices"][0]["message"]
    assert "reasoning" not in said and "thinking" not in said
    return said.get("reasoning_content"), said["content"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"content": "<think>\nHm\n</think>\n\nIt is"}, ("Hm\n", "It is")),
        ({"content": "<think>\n\n</think>\n\nIt is"}, (None, "It is")),
        ({"content": "It is", "reasoning": "Hm"}, ("Hm", "It is")),
        ({"content": "It is", "thinking": "Hm"}, ("Hm", "It is")),
        ({"content": "It is", "reasoning": "Hm", "reasoning_content": None}, ("Hm", "It is")),
        ({"content": "Hm\n</think>\n\nIt is"}, ("Hm\n", "It is")),
        ({"content": "Use `</think>` so."}, (None, "Use `</think>` so.")),
        ({"content": None, "reasoning_content": "It is"}, (None, "It is")),
        ({"content": "", "reasoning": "It is"}, (None, "It is")),
    ],
)
def test_a_whole_answer_is_brought_into_form(given: dict[str, Any], expected: tuple[Any, Any]) -> None:
    assert message(answer(given)) == expected


@pytest.mark.parametrize(
    "given",
    [
        {"content": "It is"},
        {"content": "It is", "reasoning_content": "Hm"},
        {"content": "It is <think>x</think>"},
        {"content": None},
        {"content": [{"type": "text", "text": "<think>a</think>"}]},
    ],
)
def test_a_whole_answer_in_form_is_the_same_object(given: dict[str, Any]) -> None:
    body = answer(given)
    assert whole(body, Habit())[0] is body


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"reasoning":1}', b'{"choices":[{"reasoning":1}]}', b'{"choices":5,"reasoning":"', b"think>\xff"]
)
def test_what_is_no_answer_is_left_alone(body: bytes) -> None:
    assert whole(body, Habit())[0] is body


def test_thoughts_alone_stay_where_they_may_be_thoughts() -> None:
    given = {"content": None, "reasoning_content": "Hm"}
    assert message(answer(given), thinks=True) == ("Hm", None)
    assert message(answer(given), R1) == ("Hm", None)
    assert message(answer(given, finish="length")) == ("Hm", None)
    assert message(answer(given | {"tool_calls": [{"id": "a"}]})) == ("Hm", None)


def test_a_closing_tag_counts_where_thoughts_were_asked_for_and_not_where_none_were() -> None:
    body = answer({"content": "Hm</think>It is"})
    assert message(body, thinks=True) == ("Hm", "It is")
    assert message(body, R1) == ("Hm", "It is")
    assert message(body, R1, thinks=False) == message(body) == (None, "Hm</think>It is")


def test_a_whole_answer_teaches_how_streams_begin() -> None:
    habit = Habit("my-model")
    message(answer({"content": "Hm\n</think>\n\nIt is"}), habit=habit)
    assert both(normalised(content("Hm", "</think>", "It"), habit=habit)) == ("Hm", "It")


def test_tool_calls_of_a_whole_answer_are_remembered_with_the_thoughts() -> None:
    call = {"id": "call_1", "function": {"name": "f", "arguments": "{}"}}
    for said_as in ({"content": "<think>Hm</think>"}, {"content": None, "reasoning": "Hm"}):
        [(calls, said)] = whole(answer(said_as | {"tool_calls": [call]}, finish="tool_calls"), Habit())[1]
        assert (calls[0].id, said) == ("call_1", "Hm")
