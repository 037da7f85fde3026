"""Answers kept, and who gets them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from tests.gateway.world import (
    BODY,
    MODEL,
    STREAM,
    USAGE,
    Answer,
    Asked,
    Behave,
    Caller,
    World,
    answer,
    ask,
    die,
    event,
    put_json,
    run,
    stream_then,
    until,
    world,
)

from penstock import config
from penstock.config import Class, Config, Key, KeyLimit, Rung, When
from penstock.gateway.cache import Cache, Kept

PLAIN = BODY | {"temperature": 0}
STREAMED = STREAM | {"temperature": 0}
EMBED = "/v1/embeddings"


@asynccontextmanager
async def caching(behave: Behave = answer, *, cache: config.Cache | None = None, **parts: Any) -> AsyncIterator[World]:
    given = Config(ladder=(Rung.CACHE, Rung.WAIT), cache=cache or config.Cache(), **parts)
    async with world(behave, config=given) as w:
        yield w


def hit(got: Answer) -> bool:
    return got.headers.get("x-penstock-served-by") == "cache"


@pytest.mark.parametrize("body", [PLAIN, STREAMED, STREAMED | {"stream_options": {"include_usage": True}}])
def test_the_same_again_is_answered_without_an_engine_to_the_byte(body: dict[str, Any]) -> None:
    async def test() -> None:
        async with caching() as w:
            first = await ask(w.port, body)
            again = await ask(w.port, body)
            assert (hit(first), hit(again)) == (False, True)
            assert (again.status, again.body, again.whole) == (200, first.body, True)
            assert again.headers["content-type"] == first.headers["content-type"]
            assert "x-penstock-node" not in again.headers and again.headers["x-penstock-queue-ms"] == "0"
            assert len(w.asked) == 1
            assert first.headers["x-penstock-request-id"] != again.headers["x-penstock-request-id"]

    run(test)


def test_embeddings_are_kept() -> None:
    async def behave(asked: Asked) -> None:
        put_json(asked, {"object": "list", "data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 2}})

    async def test() -> None:
        async with caching(behave) as w:
            body = {"model": MODEL, "input": "Once"}
            assert [hit(await ask(w.port, body, EMBED)) for _ in range(2)] == [False, True]

    run(test)


@pytest.mark.parametrize("more", [{}, {"temperature": 0.7}, {"temperature": None}, {"seed": 1}])
def test_a_sampled_answer_is_kept_only_when_asked(more: dict[str, Any]) -> None:
    async def test() -> None:
        body = BODY | more
        async with caching() as w:
            assert [hit(await ask(w.port, body)) for _ in range(2)] == [False, False]
            sampled = {"x-penstock-cache": "sampled"}
            assert [hit(await ask(w.port, body, headers=sampled)) for _ in range(2)] == [False, True]
            assert not hit(await ask(w.port, body))
        async with caching(cache=config.Cache(sampled=True)) as w:
            assert [hit(await ask(w.port, body)) for _ in range(2)] == [False, True]

    run(test)


def test_order_of_fields_and_what_does_not_change_an_answer_make_no_difference() -> None:
    async def test() -> None:
        async with caching() as w:
            await ask(w.port, PLAIN)
            other = dict(reversed(PLAIN.items())) | {"user": "u", "metadata": {"a": "b"}, "stream": False}
            assert hit(await ask(w.port, other))

    run(test)


@pytest.mark.parametrize("more", [{"max_tokens": 9}, {"temperature": 0.0, "top_p": 0.5}, {"stream": True}, {"seed": 7}])
def test_any_other_difference_is_another_request(more: dict[str, Any]) -> None:
    async def test() -> None:
        async with caching() as w:
            await ask(w.port, PLAIN)
            assert not hit(await ask(w.port, PLAIN | more))

    run(test)


def test_a_key_given_twice_counts_as_its_last_value() -> None:
    async def test() -> None:
        async with caching() as w:
            text = msgspec.json.encode(PLAIN)
            twice = b'{"messages": [{"role": "user", "content": "Bye"}],' + text[1:]
            assert [hit(await ask(w.port, body)) for body in (twice, text)] == [False, True]

    run(test)


def test_tenants_do_not_share_answers() -> None:
    async def test() -> None:
        keys = tuple(Key(name=name, sha256=sha256(name.encode()).hexdigest()) for name in ("sk-one", "sk-two"))
        async with caching(keys=keys) as w:
            one, two = ({"authorization": f"Bearer sk-{name}"} for name in ("one", "two"))
            assert not hit(await ask(w.port, PLAIN, headers=one))
            assert not hit(await ask(w.port, PLAIN, headers=two))
            assert hit(await ask(w.port, PLAIN, headers=one))

    run(test)


def test_a_kept_answer_costs_its_tenant_no_tokens_and_may_be_repeated() -> None:
    async def test() -> None:
        keys = (Key(name="one", sha256=sha256(b"sk-one").hexdigest(), limits=(KeyLimit(tokens=1_000), KeyLimit(requests=100))),)
        async with caching(keys=keys) as w:
            head = {"authorization": "Bearer sk-one"}
            await ask(w.port, PLAIN, headers=head)
            await until(lambda: not w.gateway.driver.calls)
            again = [await ask(w.port, PLAIN, headers=head | {"idempotency-key": "k"}) for _ in range(2)]
            assert [hit(got) for got in again] == [True, True]
            assert again[1].headers["idempotent-replayed"] == "true" and again[0].body == again[1].body
            used = w.gateway.app.spending.limited["one"].account
            assert (used.requests, used.running) == (2, 0)
            assert used.prompt_tokens + used.output_tokens == USAGE["total_tokens"]

    run(test)


def test_only_classes_that_name_the_rung_are_kept_or_given_answers() -> None:
    async def test() -> None:
        rules = (Class(name="no", when=When(stream=True), ladder=(Rung.WAIT,)),)
        async with caching(classes=rules) as w:
            for body in (STREAMED, STREAMED, PLAIN, PLAIN):
                await ask(w.port, body)
            assert len(w.asked) == 3
            assert len(cache_of(w).kept) == 1 and cache_of(w).open_bytes == 0

    run(test)


def test_without_the_rung_nothing_is_looked_at() -> None:
    async def test() -> None:
        async with world() as w:
            assert w.gateway.driver.cache is None
            assert [hit(await ask(w.port, PLAIN)) for _ in range(2)] == [False, False]

    run(test)


@pytest.mark.parametrize(
    "behave",
    [
        stream_then(event("One")),
        stream_then(event("One", error={"message": "no"})),
        stream_then(event("One"), b"0\r\n\r\n", then=answer),
    ],
)
def test_a_stream_that_did_not_come_to_its_proper_end_is_not_kept(behave: Behave) -> None:
    async def test() -> None:
        async with caching(behave) as w:
            await ask(w.port, STREAMED)
            await until(lambda: not w.gateway.driver.calls)
            assert not cache_of(w).kept and cache_of(w).open_bytes == 0

    run(test)


@pytest.mark.parametrize("body", [{"choices": []}, {"choices": [{"finish_reason": "content_filter"}]}, {"choices": 3}, []])
def test_an_answer_without_a_proper_end_is_not_kept(body: object) -> None:
    async def behave(asked: Asked) -> None:
        put_json(asked, body)

    async def test() -> None:
        async with caching(behave) as w:
            assert [hit(await ask(w.port, PLAIN)) for _ in range(2)] == [False, False]

    run(test)


def test_an_error_is_not_kept() -> None:
    async def behave(asked: Asked) -> None:
        put_json(asked, {"choices": [{"finish_reason": "stop"}]}, 400)

    async def test() -> None:
        async with caching(behave) as w:
            assert [(await ask(w.port, PLAIN)).status for _ in range(2)] == [400, 400]

    run(test)


def test_a_caller_who_leaves_leaves_nothing_behind() -> None:
    async def test() -> None:
        async with caching(stream_then(event("One"), then=never_ends)) as w, Caller(w.port) as caller:
            caller.send(STREAMED)
            await caller.head()
            await caller.piece()
            assert cache_of(w).open_bytes > 0
            caller.leave()
            await until(lambda: not w.gateway.driver.calls)
            assert cache_of(w).open_bytes == 0

    run(test)


def test_an_answer_grows_old() -> None:
    async def test() -> None:
        async with caching(cache=config.Cache(age_s=0.05)) as w:
            await ask(w.port, PLAIN)
            [kept] = cache_of(w).kept.values()
            await until(lambda: cache_of(w)._find(next(iter(cache_of(w).kept), b"")) is None)
            assert not cache_of(w).kept and cache_of(w).bytes == 0 and kept.body
            assert not hit(await ask(w.port, PLAIN))

    run(test)


def test_a_long_stream_is_not_remembered_beyond_its_share() -> None:
    async def long(asked: Asked) -> None:
        await stream_then(*(event("x" * 2_000) for _ in range(8)), then=die)(asked)

    async def test() -> None:
        async with caching(long, cache=config.Cache(bytes=32_768)) as w:
            await ask(w.port, STREAMED)
            await until(lambda: not w.gateway.driver.calls)
            assert cache_of(w).open_bytes == 0 and not cache_of(w).kept

    run(test)


def test_bytes_are_bounded_and_the_longest_unused_goes_first() -> None:
    cache = Cache(config.Cache(bytes=10 * 1_512), lambda id, rung: True)
    for number in range(10):
        cache.put(b"%d" % number, Kept(0.0, b"", b"x" * 1_000))
    assert len(cache.kept) == 10 and cache.bytes == 15_120
    cache.kept.move_to_end(b"0")
    cache.put(b"10", Kept(0.0, b"", b"x" * 1_000))
    assert list(cache.kept)[-2:] == [b"0", b"10"] and b"1" not in cache.kept and cache.bytes == 15_120
    cache.put(b"0", Kept(0.0, b"", b""))
    assert cache.bytes == 15_120 - 1_000
    cache.put(b"big", Kept(0.0, b"", b"x" * 2_000))
    assert b"big" not in cache.kept


def cache_of(w: World) -> Cache:
    cache = w.gateway.driver.cache
    assert cache is not None
    return cache


async def never_ends(asked: Asked) -> None:
    await asked.writer.wait_closed()


def test_what_came_of_a_stream_before_a_smaller_model_took_over_is_let_go_of() -> None:
    async def test() -> None:
        small = "deepseek-small"
        rule = config.Class(name="it", ladder=(config.Rung.CACHE, config.Rung.SMALLER))
        given = config.Config(classes=(rule,), smaller={MODEL: small})
        async with world(stream_then(event()), answer, config=given, each=({"models": (MODEL,)}, {"models": (small,)})) as w:
            got = await ask(w.port, STREAM | {"temperature": 0})
            assert (got.status, got.headers["x-penstock-served-by"]) == (200, "smaller")
            assert cache_of(w).open_bytes == 0 and not cache_of(w).kept

    run(test)
