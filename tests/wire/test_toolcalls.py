"""Tool calls: gathered from events, told apart by what they mean, and their thoughts put back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from msgspec import Raw

from penstock.wire.toolcalls import MOST, Function, Gathered, ToolCall, meaning, put_back, read

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1, "b": 2}'}}


def request(*messages: Any) -> bytes:
    return json.dumps({"model": "m", "temperature": 0.70, "messages": messages}).encode()


def known(calls: Iterable[ToolCall]) -> str | None:
    return next((f"thoughts of {call.id}" for call in calls if call.id == "call_1"), None)


def test_thoughts_are_put_beside_the_calls() -> None:
    said = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    sent = request({"role": "user", "content": "é"}, said, {"role": "tool", "tool_call_id": "call_1", "content": "x"})
    found = json.loads(put_back(sent, known))
    assert found["messages"][1].pop("reasoning_content") == "thoughts of call_1"
    assert found == json.loads(sent)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "tool_calls": [CALL], "reasoning_content": "own"},
        {"role": "assistant", "tool_calls": [CALL | {"id": "call_2"}]},
        {"role": "user", "tool_calls": [CALL]},
        {"role": "assistant", "tool_calls": "call_1"},
        {"role": "assistant", "tool_calls": None},
        {"role": "assistant", "content": '"tool_calls"'},
        ["tool_calls"],
        {"role": "assistant", "tool_calls": [{"id": 5}]},
    ],
)
def test_other_messages_are_the_same_object(message: Any) -> None:
    sent = request(message)
    assert put_back(sent, known) is sent


def test_an_empty_field_is_a_dropped_one() -> None:
    sent = request({"role": "assistant", "tool_calls": [CALL], "reasoning_content": None})
    assert b"thoughts of call_1" in put_back(sent, known)


def test_arguments_mean_the_same_however_they_are_written() -> None:
    def call(arguments: str | None, name: str = "f") -> bytes:
        return meaning(ToolCall(0, "x", Function(name, arguments)))

    assert call('{"a": 1, "b": 2}') == call('{"b":2,"a":1}')
    assert call('{"a": 1}') != call('{"a": 2}')
    assert call("{}") != call("{}", "g")
    assert call("no json") == call("no json") != call("other")
    assert call(None) == call("")


def test_parts_are_gathered_by_index() -> None:
    gathered = Gathered()
    parts: list[list[dict[str, Any]]] = [
        [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}],
        [{"index": 1, "id": "b", "function": {"name": "g"}}, {"index": 0, "function": {"arguments": '{"x"'}}],
        [{"index": 0, "function": {"arguments": ":1}"}}, {"index": 1}],
    ]
    for part in parts:
        gathered.add(Raw(json.dumps(part).encode()))
    first, second = gathered.all()
    assert (first.id, first.function) == ("a", Function("f", '{"x":1}'))
    assert (second.id, second.function) == ("b", Function("g", ""))


def test_no_end_of_calls_is_gathered() -> None:
    gathered = Gathered()
    for index in range(MOST + 5):
        gathered.add(Raw(json.dumps([{"index": index, "id": str(index)}]).encode()))
    assert len(gathered.all()) == MOST
    assert len(read(json.dumps([{"id": "a"}] * (MOST + 5)).encode())) == MOST
