"""Lines of batch files."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import CallError
from penstock.wire import batch

CHAT = "/v1/chat/completions"


def test_a_line_keeps_its_body_to_the_byte() -> None:
    line = batch.read(b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"x":1.50,"y" : "\\u0041"},"more":1}', CHAT)
    assert (line.custom_id, line.body) == ("a", b'{"x":1.50,"y" : "\\u0041"}')


@given(st.binary(max_size=200))
def test_any_bytes_are_a_line_or_an_error(data: bytes) -> None:
    try:
        batch.read(data, CHAT)
    except CallError as error:
        assert error.status == 400


@pytest.mark.parametrize("depth", [10, 100_000])
def test_deep_nesting_is_no_crash(depth: int) -> None:
    data = b'{"custom_id":' + b"[" * depth + b"]" * depth + b"}"
    with pytest.raises(CallError):
        batch.read(data, CHAT)
    assert batch.embedded(b"[" * depth + b"]" * depth)


@pytest.mark.parametrize(
    ("body", "value"),
    [(b"", None), (b'{"a":1}', {"a": 1}), (b'{"a":', '{"a":'), (b"\xff", "�"), (b'"\xff"', '"�"'), (b"NaN", "NaN"), (b"1 2", "1 2")],
)
def test_an_answer_is_embedded_as_json_or_as_text(body: bytes, value: Any) -> None:
    line = batch.answered("i", "c", "r", 200, body)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert msgspec.json.decode(line) == {
        "id": "i",
        "custom_id": "c",
        "response": {"status_code": 200, "request_id": "r", "body": value},
        "error": None,
    }


def test_a_pretty_printed_answer_stays_on_one_line() -> None:
    line = batch.answered("i", "c", "r", 200, b'{\n  "a": [1,\r\n 2.50]\n}')
    assert line.count(b"\n") == 1
    assert b"2.50" in line


def test_a_request_that_none_answered_says_why() -> None:
    line = msgspec.json.decode(batch.unanswered("i", "c", "batch_expired", "late"))
    assert line == {"id": "i", "custom_id": "c", "response": None, "error": {"code": "batch_expired", "message": "late"}}
