"""Which fields of a call's metadata are read, and as what text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from penstock.config import Limits
from penstock.errors import CallError
from penstock.facts import Route
from penstock.wire.metadata import METADATA_BYTES, picked
from penstock.wire.openai import read


def sent(metadata: object, route: Route = Route.CHAT) -> bytes:
    chat: Any = {"messages": [{"role": "user", "content": "hi"}]}
    prompts: dict[Route, Any] = {Route.CHAT: chat, Route.COMPLETIONS: {"prompt": "hi"}, Route.EMBEDDINGS: {"input": "hi"}}
    return json.dumps({"model": "m", **prompts[route], "metadata": metadata}).encode()


def found(metadata: object, *names: str, route: Route = Route.CHAT) -> dict[str, str]:
    return read(route, sent(metadata, route), Limits(), 0, {}, names).metadata


@pytest.mark.parametrize("route", list(Route))
def test_only_the_fields_asked_for_are_read_on_every_route(route: Route) -> None:
    assert found({"amount": "5", "other": "x"}, "amount", "absent", route=route) == {"amount": "5"}


@pytest.mark.parametrize(
    ("value", "text"),
    [("x", "x"), ("", ""), ("é", "é"), (5, "5"), (-2.50, "-2.5"), (True, "true"), (False, "false"), (None, None), ([], None), ({}, None)],
)
def test_numbers_and_booleans_count_as_their_text(value: Any, text: str | None) -> None:
    assert found({"a": value}, "a") == ({} if text is None else {"a": text})


def test_a_number_keeps_the_digits_it_was_sent_with() -> None:
    assert picked(Raw(b'{"a": 1000000000000000000000.10 }'), ["a"]) == {"a": "1000000000000000000000.10"}


def test_a_name_with_dots_goes_into_objects_unless_it_is_a_field_itself() -> None:
    nested = {"order": {"amount": 5, "who": {"name": "x"}}, "flat.name": "f", "text": "no object"}
    names = ("order.amount", "order.who.name", "flat.name", "order.who", "order.absent", "text.length")
    assert found(nested, *names) == {"order.amount": "5", "order.who.name": "x", "flat.name": "f"}


def test_a_field_that_comes_twice_counts_as_its_last() -> None:
    assert picked(Raw(b'{"a": "1", "a": "2"}'), ["a"]) == {"a": "2"}


def test_without_metadata_there_is_none() -> None:
    assert picked(Raw(), ["a"]) == {}
    assert found(None, "a") == {}


@pytest.mark.parametrize("metadata", ["x", 5, True, [{}]])
def test_metadata_of_another_type_is_refused_only_where_it_is_read(metadata: object) -> None:
    with pytest.raises(CallError) as caught:
        found(metadata, "a")
    assert (caught.value.status, caught.value.code, caught.value.field) == (400, "invalid_value", "metadata")
    assert found(metadata) == {}


def test_metadata_is_capped_only_where_it_is_read() -> None:
    room = METADATA_BYTES - len(json.dumps({"a": ""}))
    assert found({"a": "x" * room}, "a") == {"a": "x" * room}
    large = {"a": "x" * (room + 1)}
    with pytest.raises(CallError) as caught:
        found(large, "a")
    assert (caught.value.status, caught.value.code, caught.value.field) == (400, "object_above_max_length", "metadata")
    assert found(large) == {}


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(CallError):
        picked(Raw(rb'{"a": "\ud800"}'), ["a"])


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", "a.b"]), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "a.b"]), JSON, max_size=3))
def test_any_metadata_gives_texts_of_the_names_asked_for(metadata: dict[str, Any]) -> None:
    names = ("a", "a.b", "a.b.a")
    texts = picked(Raw(json.dumps(metadata).encode()), names)
    assert texts.keys() <= set(names)
    direct = metadata.get("a")
    assert texts.get("a") == (direct if isinstance(direct, str) else json.dumps(direct) if isinstance(direct, bool | int | float) else None)
