"""Calls in OpenAI's form: what is read of them, what is refused, and when the body changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config import Limits
from penstock.errors import CallError
from penstock.facts import Route
from penstock.wire import caps
from penstock.wire.openai import Call, error, models, read

LIMITS = Limits(max_tokens=10_000, messages=8, n=4)
MESSAGES = [{"role": "user", "content": "Hello"}]
VALID = b'{"model":"m","messages":[{}]}'


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": MESSAGES, **fields}).encode()


def chat(sent: bytes, **aliases: str) -> Call:
    return read(Route.CHAT, sent, LIMITS, 7, aliases)


def refused(sent: bytes, route: Route = Route.CHAT) -> CallError:
    with pytest.raises(CallError) as caught:
        read(route, sent, LIMITS, 7, {})
    assert caught.value.status == 400
    return caught.value


def test_plain_call_goes_on_as_the_same_object() -> None:
    sent = body(max_tokens=5, unknown={"deep": [1, 2.50]})
    call = chat(sent)
    assert call.body is sent
    assert (call.model, call.asked_model, call.stream, call.usage_asked, call.max_tokens) == ("m", "m", False, False, 5)


def test_max_completion_tokens_wins_over_max_tokens() -> None:
    assert chat(body(max_tokens=5, max_completion_tokens=9)).max_tokens == 9


def test_alias_renames_the_model_and_keeps_every_other_text() -> None:
    sent = b'{"temperature":0.70, "model" : "old", "seed":1e2,"messages": [{"role":"user","content":"\\u00e9"}] }'
    call = read("chat", sent, LIMITS, 7, {"old": "new"})
    assert (call.model, call.asked_model) == ("new", "old")
    assert call.body == b'{"temperature":0.70,"model":"new","seed":1e2,"messages":[{"role":"user","content":"\\u00e9"}]}'


def test_usage_is_asked_for_a_stream_by_splicing() -> None:
    call = chat(b" " + body(stream=True))
    assert not call.usage_asked
    assert call.body == b'{"stream_options":{"include_usage":true},' + body(stream=True)[1:]


def test_stream_that_asks_for_usage_is_left_alone() -> None:
    sent = body(stream=True, stream_options={"include_usage": True})
    call = chat(sent)
    assert call.usage_asked
    assert call.body is sent


@pytest.mark.parametrize("given_options", [None, {}, {"include_usage": False, "other": 1.50}, {"include_usage": None}])
def test_given_stream_options_are_completed(given_options: Any) -> None:
    call = chat(body(stream=True, stream_options=given_options, seed=3))
    sent = json.loads(call.body)
    assert not call.usage_asked
    assert sent.pop("stream_options") == {**(given_options or {}), "include_usage": True}
    assert sent == {"model": "m", "messages": MESSAGES, "stream": True, "seed": 3}


def test_escaped_key_is_the_same_key() -> None:
    sent = body(stream=True)[:-1] + b', "stream_option\\u0073": {"include_usage": false}}'
    assert json.loads(chat(sent).body)["stream_options"] == {"include_usage": True}


def test_last_of_duplicate_keys_counts_as_it_does_for_engines() -> None:
    sent = b'{"model":"a","model":"b","messages":[{}],"max_tokens":3,"max_tokens":4}'
    call = chat(sent)
    assert (call.model, call.max_tokens) == (json.loads(sent)["model"], json.loads(sent)["max_tokens"])


@pytest.mark.parametrize("key", ["api_base", "base_url", "api_key", "extra_headers", "organization"])
@pytest.mark.parametrize("value", ["", "x", "http://169.254.169.254/", None, {}, 1])
def test_keys_that_would_redirect_the_engine_are_refused(key: str, value: Any) -> None:
    for route, prompt in ((Route.CHAT, "messages"), (Route.COMPLETIONS, "prompt"), (Route.EMBEDDINGS, "input")):
        problem = refused(json.dumps({"model": "m", prompt: MESSAGES if route == "chat" else "x", key: value}).encode(), route)
        assert (problem.code, problem.field) == ("unsupported_parameter", key)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", None),
        ("model", 3),
        ("model", ""),
        ("model", "m" * 257),
        ("messages", None),
        ("messages", []),
        ("messages", "text"),
        ("messages", {}),
        ("messages", [1]),
        ("messages", [[]]),
        ("n", 0),
        ("n", "2"),
        ("n", True),
        ("n", 5),
        ("max_tokens", -1),
        ("max_tokens", 0.5),
        ("max_tokens", "many"),
        ("max_tokens", 10_001),
        ("max_tokens", 10**30),
        ("max_completion_tokens", 0),
        ("max_completion_tokens", 10_001),
        ("temperature", "hot"),
        ("top_p", []),
        ("logprobs", 3),
        ("top_logprobs", 21),
        ("top_logprobs", -1),
        ("stream", 1),
        ("stream_options", True),
        ("stream_options", {"include_usage": 1}),
        ("stop", 5),
        ("stop", [1]),
        ("stop", ["x"] * 17),
        ("stop", "x" * 9000),
        ("logit_bias", [1]),
        ("logit_bias", {"5": 101}),
        ("logit_bias", {"5": "x"}),
        ("logit_bias", {str(token): 1 for token in range(1025)}),
        ("logit_bias", {"x" * 70_000: 1}),
        ("tools", {}),
        ("tools", "x"),
        ("tools", [{"x": "y" * caps.TOOLS_BYTES}]),
        ("functions", 3),
        ("messages", MESSAGES * 3000),
    ],
)
def test_value_out_of_bounds_is_refused_by_name(field: str, value: Any) -> None:
    problem = refused(body(**{field: value}))
    assert problem.field == field
    assert f"'{field}'" in problem.message


@pytest.mark.parametrize("fields", [{"best_of": 9}, {"logprobs": True}, {"logprobs": 21}, {"prompt": 5}, {"prompt": []}, {"prompt": [{}]}])
def test_completion_out_of_bounds_is_refused_by_name(fields: dict[str, Any]) -> None:
    problem = refused(json.dumps({"model": "m", "prompt": "x", **fields}).encode(), Route.COMPLETIONS)
    assert problem.field == next(iter(fields))


@pytest.mark.parametrize(("route", "field"), [(Route.CHAT, "messages"), (Route.COMPLETIONS, "prompt"), (Route.EMBEDDINGS, "input")])
def test_missing_field_is_named(route: Route, field: str) -> None:
    problem = refused(b'{"model":"m"}', route)
    assert (problem.code, problem.field) == ("missing_required_parameter", field)
    problem = refused(b'{"%s":"x"}' % field.encode(), route)
    assert (problem.code, problem.field) == ("missing_required_parameter", "model")


def test_long_messages_full_of_braces_are_not_many_messages() -> None:
    sent = body(messages=[{"role": "user", "content": "{}" * 100}])
    assert chat(sent).body is sent


def test_nulls_are_fields_left_out() -> None:
    optional = ("n", "max_tokens", "stop", "stream", "logit_bias", "tools", "functions", "temperature", "top_logprobs", "logprobs")
    sent = body(**dict.fromkeys(optional))
    assert chat(sent).body is sent


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999"])
def test_numbers_that_are_not_finite_are_refused(number: bytes) -> None:
    refused(b'{"model":"m","messages":[{}],"temperature":' + number + b"}")
    if b"1e" not in number:
        refused(b'{"model":"m","messages":[{"x":' + number + b"}]}")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b'{"model":"m",}',
        VALID + b" {}",
        VALID + b"x",
        b"\xef\xbb\xbf{}",
        b'{"a":"\x01"}',
        b"\x00",
        b"{'model':1}",
    ],
)
def test_what_is_no_json_object_is_refused(text: bytes) -> None:
    assert refused(text).field in (None, "model")


def test_invalid_utf8_is_refused_wherever_it_stands() -> None:
    assert refused(b'{"model":"m","messages":[{"content":"\xff"}]}').code == "invalid_utf8"
    assert refused(b'{"model":"m","messages":[{}],"skipped":"\xed\xa0\x80"}').code == "invalid_utf8"


@pytest.mark.parametrize("levels", [63, 100, 5_000, 1_000_000])
def test_deep_json_is_refused(levels: int) -> None:
    sent = b'{"model":"m","messages":[{}],"x":' + b"[" * levels + b"1" + b"]" * levels + b"}"
    if levels == 63:
        assert chat(sent).body is sent
    else:
        assert refused(sent).code == "json_too_deep"


def test_completion_and_embedding_are_read() -> None:
    sent = b'{"model":"m","prompt":"abc","max_tokens":0,"best_of":2,"stream":true,"stream_options":{"include_usage":true}}'
    call = read("completions", sent, LIMITS, 7, {})
    assert (call.stream, call.max_tokens, call.body) == (True, 0, sent)
    sent = b'{"model":"m","input":[[1,2,3],[4,5]],"stream":true}'
    call = read("embeddings", sent, LIMITS, 7, {})
    assert (call.stream, call.prompt_tokens, call.body) == (False, 5, sent)
    assert read("embeddings", sent, LIMITS, 7, {"m": "e"}).model == "e"


def test_error_has_openais_form() -> None:
    sent = json.loads(error(503, "overloaded", "Try later.", retry_after_ms=250))
    assert sent == {"error": {"message": "Try later.", "type": "server_error", "param": None, "code": "overloaded", "retry_after_ms": 250}}
    assert json.loads(error(400, "invalid_value", "No.", "n"))["error"]["type"] == "invalid_request_error"
    assert json.loads(error(429, "limit", "No."))["error"]["type"] == "rate_limit_error"


def test_models_are_listed() -> None:
    listed = json.loads(models(["a", "b"]))
    assert [model["id"] for model in listed["data"]] == ["a", "b"]
    assert listed["object"] == "list"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    [
        "model",
        "messages",
        "prompt",
        "input",
        "n",
        "best_of",
        "max_tokens",
        "stop",
        "stream",
        "stream_options",
        "tools",
        "logit_bias",
        "api_key",
    ]
)


@given(st.sampled_from(list(Route)), st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_call_errors(route: Route, sent: bytes) -> None:
    try:
        read(route, sent, LIMITS, 7, {})
    except CallError as problem:
        assert problem.message


@given(st.sampled_from(list(Route)), st.dictionaries(names | st.text(max_size=5), values, max_size=8))
def test_arbitrary_objects_raise_nothing_but_call_errors(route: Route, fields: dict[str, Any]) -> None:
    sent = json.dumps(fields).encode()
    try:
        call = read(route, sent, LIMITS, 7, {})
    except CallError as problem:
        assert problem.message
    else:
        assert call.body is sent or call.stream


@given(st.dictionaries(st.text(min_size=3, max_size=5), values, max_size=6), st.booleans(), st.booleans(), st.booleans())
def test_rewriting_changes_nothing_but_what_it_must(extra: dict[str, Any], alias: bool, stream: bool, options: bool) -> None:
    extra.pop("stop", None)
    fields = {"model": "m", "messages": MESSAGES, "stream": stream, **({"stream_options": {"x": 1}} if options else {}), **extra}
    try:
        call = read("chat", sent := json.dumps(fields).encode(), LIMITS, 7, {"m": "other"} if alias else {})
    except CallError:
        return  # a float that JSON does not know, or a short key that means something
    if not stream and not alias:
        assert call.body is sent
    expected = {**fields, "model": call.model}
    if stream:
        expected["stream_options"] = {**({"x": 1} if options else {}), "include_usage": True}
    assert json.loads(call.body) == expected
