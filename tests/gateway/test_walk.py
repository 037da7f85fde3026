"""What is told of a request is what the gateway would do with it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.gateway.test_asked import DESK, KEYED, LAB, OPEN, booked, watched
from tests.gateway.world import BODY, MODEL, ask, run, world

from penstock.cli.walk import document, lines
from penstock.config import Class, Config, Limits, Node, Range, Rung, When
from penstock.errors import ConfigError
from penstock.facts import Route
from penstock.gateway.auth import ENVIRONMENT
from penstock.gateway.walk import Walk, walk


def walked(request: object, config: Config = KEYED, **environ: str) -> Walk:
    return walk(config, msgspec.json.encode(request), "f", environ)


def line_of(request: object, config: Config = KEYED) -> str:
    with pytest.raises(ConfigError) as caught:
        walk(config, request if isinstance(request, bytes) else msgspec.json.encode(request), "f", {})
    message = str(caught.value)
    assert "\n" not in message
    return message


REQUESTS: list[dict[str, Any]] = [
    {"key": "desk", "body": BODY},
    {"key": "lab", "body": BODY},
    {"key": "lab", "body": BODY | {"metadata": {"order": {"amount": 2_000_000}}}},
    {"key": "desk", "body": BODY | {"metadata": {"order.amount": "2e6"}, "stream": True}},
    {"key": "lab", "headers": {"X-Task": "report-é"}, "body": BODY | {"metadata": {"order": {"amount": "nan"}}}},
    {"key": "desk", "headers": {"x-penstock-class": "trade-now", "x-penstock-ladder": "wait"}, "body": BODY},
]


def test_the_walk_and_the_gateway_see_the_same_request_and_class() -> None:
    async def test() -> None:
        async with world(config=KEYED) as w:
            seen = watched(w)
            for request in REQUESTS:
                before = booked(w)
                headers = (DESK if request["key"] == "desk" else LAB) | request.get("headers", {})
                assert (await ask(w.port, request["body"], headers=headers)).status == 200
                told = walked(request)
                assert msgspec.structs.replace(seen[-1], id=1) == told.request
                after = booked(w)
                assert [name for name in after if after[name] != before.get(name, 0)] == [told.task.name]

    run(test)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"x-penstock-class": "large"}, BODY),
        ({"x-penstock-class": "nothing"}, BODY),
        ({"x-penstock-ladder": "up"}, BODY),
        ({}, BODY | {"metadata": 5}),
        ({}, {"model": MODEL, "messages": []}),
    ],
)
def test_what_the_gateway_refuses_is_told_in_its_words(headers: dict[str, str], body: dict[str, Any]) -> None:
    async def test() -> None:
        async with world(config=KEYED) as w:
            answer = await ask(w.port, body, headers=DESK | headers)
            told = line_of({"key": "desk", "headers": headers, "body": body})
            assert f"f: the gateway would answer {answer.status} ({answer.error['code']}): {answer.error['message']}" == told

    run(test)


def test_a_plain_body_is_a_request_of_nobody_in_particular() -> None:
    told = walked(BODY)
    assert (told.request.tenant, told.task.name) == ("", "rest")
    assert told.notes == ("no key is named: the gateway asks for one of desk, lab",)
    assert walked(BODY, OPEN).notes == ()
    assert walked({"key": "me", "body": BODY}, OPEN, **{ENVIRONMENT: "me:x"}).request.tenant == "me"


def test_the_route_is_that_of_the_prompt_or_as_given() -> None:
    assert walked({"model": "m", "prompt": "x"}).request.route is Route.COMPLETIONS
    assert walked({"model": "m", "input": "x"}).request.route is Route.EMBEDDINGS
    assert walked({"body": BODY, "route": "chat"}).request.route is Route.CHAT


def test_a_model_that_no_node_serves_is_noted() -> None:
    node = Node(name="n", url="http://n", models=("other",))
    assert "no node serves" in walked(BODY, Config(nodes=(node,))).notes[0]
    assert walked(BODY, Config(nodes=(node, Node(name="o", url="http://o")))).notes == ()


def test_deadlines_grow_with_the_prompt_and_ladders_are_shortened() -> None:
    rule = Class(name="c", ttft_ms=100, ttft_ms_per_1k=1_000, total_ms=9_000, tpot_ms=50, ladder=(Rung.CACHE, Rung.WAIT, Rung.REJECT))
    config = Config(classes=(rule,))
    told = walked({"headers": {"x-penstock-ladder": "reject,cache"}, "body": BODY}, config)
    assert told.ttft_ms == pytest.approx(100 + told.request.prompt_tokens)
    assert (told.total_ms, told.ladder) == (9_000, ("cache", "reject"))
    shown = document(told)
    assert (shown["class"], shown["tpot_ms"], shown["patient"]) == ("c", 50, False)
    assert list(lines(told))[-3:] == [
        "value    1", f"deadline first token within {told.ttft_ms:g} ms and whole answer within 9000 ms", "ladder   cache, reject",
    ]  # fmt: skip


def test_a_request_is_told_in_words() -> None:
    rules = (Class(name="a", when=When(tenant="t", metadata={"n": Range(gt=5)})), Class(name="b", when=When(stream=True)))
    told = "\n".join(lines(walked(BODY, Config(classes=rules))))
    assert told.endswith(
        "rule     a: no match\n           no   tenant t: none\n           no   metadata.n > 5: absent\n"
        "rule     b: no match\n           no   stream true: false\n"
        "class    default (no rule matches)\npriority 3\nvalue    1\n"
        "deadline none: it waits until the queue's bound (knobs.queue_ttl_s)\nladder   wait, reject"
    )
    patient = "\n".join(lines(walked(BODY, Config(classes=(Class(name="p", timeout="none"),)))))
    assert "           yes  everything\nclass    p\n" in patient and "deadline none: it waits as long as it takes" in patient
    asked = {"headers": {"x-penstock-class": "p", "x-penstock-ladder": "ticket"}, "body": BODY}
    told = "\n".join(lines(walked(asked, Config(classes=(Class(name="p"),)))))
    assert "asked    for the class p by x-penstock-class: the rules are not tried\nclass    p\n" in told
    assert told.endswith("ladder   none: no rung of the class is among those that the caller allows")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (b"", "f: not a request: it is empty; give the JSON body of a call"),
        (b" \n", "f: not a request: it is empty; give the JSON body of a call"),
        (b"\xef\xbb\xbf{}", "f: not a request: it begins with a byte order mark"),
        (b"[1]", "f: not a request: it must be a JSON object"),
        (b"{}", "f: not a request: body is missing"),
        (b'{"body": 5}', "f: not a request: body must be the body of a call, a JSON object"),
        ({"body": BODY, "key": 5}, "f: not a request: key must be text: the name of a key"),
        ({"body": BODY, "headers": []}, "f: not a request: headers must be an object of texts"),
        (b'{"bdy": {}}', "f: not a request: unknown key 'bdy'"),
        (b'{"model": "m", "messages": [{}], "x": "\xff"}', "f: the gateway would answer 400 (invalid_utf8)"),
        (b'{"model": "m", "messages": ' + b"[" * 100_000, "f: not a request: "),
        ({"body": BODY, "route": "chats"}, "f: not a request: route must be one of chat, completions, embeddings"),
        ({"body": BODY, "headers": {"x": 5}}, "f: not a request: headers must be an object of texts"),
        ({"body": BODY, "headers": {"x": "a\r\nb: c"}}, "f: not a request: the header 'x' holds characters that no header can"),
        ({"body": BODY, "headers": {"x y": "a"}}, "f: the gateway would answer 400 (bad_request)"),
        ({"body": BODY, "key": "me"}, "f: key: no tenant is named 'me'; known: desk, lab"),
    ],
)
def test_what_is_no_request_is_one_line(request_: object, message: str) -> None:
    assert line_of(request_).startswith(message)


def test_a_tenant_is_named_only_where_keys_are() -> None:
    assert "known: none, as no key is configured" in line_of({"body": BODY, "key": "me"}, OPEN)


def test_a_body_larger_than_the_gateway_takes_is_told_as_such() -> None:
    assert "413 (body_too_large)" in line_of(BODY, Config(limits=Limits(body_bytes=10)))
