"""The conversation that a call names."""

from __future__ import annotations

import json

import pytest

from penstock.config import Limits
from penstock.errors import CallError
from penstock.wire import openai
from penstock.wire.session import LONGEST, checked, header


def read(**fields: object) -> str:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return openai.read("chat", json.dumps(body).encode(), Limits(), 0, {}).session


def test_the_body_names_it() -> None:
    assert read(prompt_cache_key="chat-7") == "chat-7"
    assert read() == read(prompt_cache_key=None) == read(prompt_cache_key="") == ""


@pytest.mark.parametrize("value", [7, ["a"], {"a": "b"}, True])
def test_what_is_no_text_is_refused_with_its_name(value: object) -> None:
    with pytest.raises(CallError, match="'prompt_cache_key' must be a string") as caught:
        read(prompt_cache_key=value)
    assert (caught.value.status, caught.value.field) == (400, "prompt_cache_key")


def test_a_header_is_text_in_utf_8_or_else_as_it_came() -> None:
    assert header("Gespräch-à".encode().decode("latin-1")) == "Gespräch-à"
    assert header("caf\xe9") == "café"


@pytest.mark.parametrize("value", ["a\tb", "a\x85b", "a\u2028b"])
def test_what_cannot_be_printed_is_refused(value: str) -> None:
    with pytest.raises(CallError, match="printable"):
        checked(value, "x")


def test_a_long_name_is_refused_and_the_longest_is_not() -> None:
    assert checked("é" * LONGEST, "x") == "é" * LONGEST
    with pytest.raises(CallError, match="at most 256 characters") as caught:
        header("a" * (LONGEST + 1))
    assert (caught.value.code, caught.value.field) == ("string_above_max_length", "x-penstock-session")
