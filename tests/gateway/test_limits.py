"""Limits and budgets of keys, on real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Any

import msgspec
import openai
import pytest
from openai import AsyncOpenAI
from tests.gateway.world import (
    BODY,
    MODEL,
    STREAM,
    USAGE,
    Answer,
    Asked,
    Caller,
    World,
    answer,
    ask,
    die,
    event,
    get,
    never,
    put_json,
    refuse,
    run,
    stream_then,
    until,
    world,
)

from penstock.config import Class, Config, Key, KeyLimit, Listen, Price, Rung
from penstock.facts import KeyUse
from penstock.gateway.limits import duration

DESK = {"authorization": "Bearer sk-desk"}
PLAIN = {"authorization": "Bearer sk-plain"}
PRICES = {"deepseek*": Price(input_per_1m=1_000_000.0, cached_per_1m=100_000.0, output_per_1m=2_000_000.0)}
"""A prompt token costs 1, one from the cache 0.1, an output token 2."""


def keyed(*limits: KeyLimit, concurrency: int | None = None, **more: Any) -> Config:
    """A key with these limits, and one without any."""
    desk = Key(name="desk", sha256=hashlib.sha256(b"sk-desk").hexdigest(), limits=limits, concurrency=concurrency)
    return Config(keys=(desk, Key(name="plain", sha256=hashlib.sha256(b"sk-plain").hexdigest())), prices=PRICES, **more)


def desk(w: World) -> KeyUse:
    return w.gateway.key_use()[0]


def used(w: World) -> dict[str, float]:
    return {window.limit: window.used for window in desk(w).windows}


async def call(w: World, body: object = BODY, **headers: str) -> Answer:
    return await ask(w.port, body, headers=DESK | headers)


def test_answers_carry_openais_headers_and_those_of_keys_without_limits_none() -> None:
    async def test() -> None:
        config = keyed(KeyLimit(requests=5), KeyLimit(requests=1_000, window_s=3_600), KeyLimit(tokens=1_000))
        async with world(config=config) as w:
            first = await call(w)
            assert first.headers["x-ratelimit-limit-requests"] == "5"
            assert first.headers["x-ratelimit-remaining-requests"] == "4"
            assert first.headers["x-ratelimit-reset-requests"] == "1m0s"
            assert first.headers["x-ratelimit-limit-tokens"] == "1000"
            assert 950 < int(first.headers["x-ratelimit-remaining-tokens"]) < 1_000
            for body, status in ((STREAM, 200), ({"model": "no"}, 400), (BODY | {"model": "no"}, 404)):
                got = await call(w, body)
                assert got.status == status
                assert got.headers["x-ratelimit-remaining-requests"] == "3"
            unknown = await call(w, **{"x-penstock-class": "none"})
            assert (unknown.status, unknown.headers["x-ratelimit-remaining-requests"]) == (400, "3")
            plain = await ask(w.port, BODY, headers=PLAIN)
            assert not [name for name in plain.headers if "ratelimit" in name]

    run(test)


def test_a_refused_call_says_which_limit_and_when_there_is_room_and_is_then_served() -> None:
    async def test() -> None:
        async with world(config=keyed(KeyLimit(requests=2, window_s=0.5))) as w:
            began = time.monotonic()
            assert [(await call(w)).status for _ in range(2)] == [200, 200]
            refused = await call(w)
            assert refused.status == 429
            assert refused.headers["x-should-retry"] == "true"
            assert refused.headers["retry-after"] == "1"
            assert refused.headers["x-ratelimit-remaining-requests"] == "0"
            error = refused.error
            assert (error["code"], error["type"], error["limit_kind"]) == ("rate_limit_exceeded", "requests", "requests")
            assert (error["limit"], error["used"], error["requested"], error["window_s"]) == (2, 2, 1, 0.5)
            wait_s = int(refused.headers["retry-after-ms"]) / 1000
            assert time.monotonic() - began + wait_s >= 0.5
            assert wait_s <= 0.551
            await asyncio.sleep(wait_s)
            assert (await call(w)).status == 200
            assert len(w.asked) == 3
            assert w.gateway.ledger.turned_away == {"rate_limit_exceeded": 1}

    run(test)


def test_what_can_never_fit_says_so_and_is_not_to_be_retried() -> None:
    async def test() -> None:
        async with world(config=keyed(KeyLimit(tokens=100))) as w:
            refused = await call(w, BODY | {"max_tokens": 100})
            assert (refused.status, refused.headers["x-should-retry"]) == (429, "false")
            assert not {"retry-after", "retry-after-ms"} & set(refused.headers)
            assert "max_tokens" in refused.error["message"] and "Too large" in refused.error["message"]
            assert (await call(w, BODY | {"max_tokens": 30, "n": 4})).status == 429
            assert (await call(w, BODY | {"max_tokens": 30})).status == 200
            assert (await call(w, {name: BODY[name] for name in ("model", "messages")})).status == 200

    run(test)


def test_a_limit_holds_for_calls_that_come_at_once() -> None:
    async def test() -> None:
        async with world(config=keyed(KeyLimit(requests=10))) as w:
            answers = await asyncio.gather(*(call(w) for _ in range(40)))
            assert sorted(got.status for got in answers) == [200] * 10 + [429] * 30
            assert len(w.asked) == 10

    run(test)


def test_tokens_are_reserved_before_and_settled_with_the_engines_counts() -> None:
    async def test() -> None:
        async with world(config=keyed(KeyLimit(tokens=300))) as w:
            body = BODY | {"max_tokens": 120}
            answers = await asyncio.gather(*(call(w, body) for _ in range(6)))
            assert sum(got.status == 200 for got in answers) == 2
            assert used(w) == {"tokens": 2 * USAGE["total_tokens"]}
            assert (await call(w, STREAM)).status == 200
            assert used(w) == {"tokens": 3 * USAGE["total_tokens"]}

    run(test)


def test_a_budget_is_spent_by_price_and_its_refusal_is_openais() -> None:
    async def cached(asked: Asked) -> None:
        put_json(asked, {"choices": [], "usage": USAGE | {"prompt_tokens_details": {"cached_tokens": 5}}})

    async def test() -> None:
        async with world(cached, config=keyed(KeyLimit(cost=40.0, window_s=86_400.0))) as w:
            assert (await call(w)).status == 200
            assert used(w) == {"cost": pytest.approx(4 * 1 + 5 * 0.1 + 3 * 2)}
            assert (await call(w)).status == 200
            refused = await call(w)
            assert (refused.status, refused.error["code"], refused.error["type"]) == (429, "insufficient_quota", "insufficient_quota")
            assert refused.headers["x-should-retry"] == "false"
            assert int(refused.headers["retry-after"]) > 80_000
            assert desk(w).cost == pytest.approx(21.0)
            assert desk(w).cached_tokens == 10

    run(test)


def test_concurrency_is_a_limit_and_freed_when_calls_end_or_their_callers_leave() -> None:
    async def test() -> None:
        async with world(never, config=keyed(concurrency=2)) as w, Caller(w.port) as one, Caller(w.port) as two:
            for caller in (one, two):
                caller.send(STREAM, headers=DESK)
            await until(lambda: w.engines[0].open == 2)
            refused = await call(w)
            assert (refused.status, refused.error["code"]) == (429, "concurrency_limit_exceeded")
            assert refused.headers["x-should-retry"] == "true"
            assert 0 < int(refused.headers["retry-after-ms"]) < 2_000
            one.leave()
            await until(lambda: desk(w).running == 1)
            w.engines[0].behave = answer
            assert (await call(w)).status == 200
            assert desk(w).running == 1

    run(test)


@pytest.mark.parametrize("behave", [die, refuse(500), refuse(429)])
def test_a_call_that_engines_failed_gives_everything_back(behave: Any) -> None:
    async def test() -> None:
        async with world(behave, config=keyed(KeyLimit(requests=5), KeyLimit(tokens=1_000), KeyLimit(cost=1e6), concurrency=9)) as w:
            assert (await call(w)).status == 503
            assert used(w) == {"requests": 0, "tokens": 0, "cost": 0}
            assert (desk(w).requests, desk(w).running) == (0, 0)

    run(test)


def test_a_call_that_the_core_refused_gives_everything_back() -> None:
    async def test() -> None:
        config = keyed(KeyLimit(requests=5), KeyLimit(tokens=1_000), classes=(Class(name="tight", ttft_ms=0.001),))
        async with world(config=config) as w:
            assert (await call(w)).status == 503
            assert used(w) == {"requests": 0, "tokens": 0}

    run(test)


def test_a_call_that_its_ladder_made_a_ticket_counts_once_when_it_runs() -> None:
    opened = asyncio.Event()

    async def engine(asked: Asked) -> None:
        await opened.wait()
        await answer(asked)

    async def test() -> None:
        config = keyed(KeyLimit(requests=10), KeyLimit(tokens=10_000), classes=(Class(name="it", ladder=(Rung.TICKET,)),))
        async with world(engine, config=config, max_running=1) as w, Caller(w.port) as busy:
            busy.send(BODY, headers=PLAIN)
            await until(lambda: w.engines[0].open)
            got = await call(w)
            assert got.status == 202
            await until(lambda: desk(w).running == 1)
            assert used(w)["requests"] == 1
            opened.set()
            ended = await get(w.port, f"/v1/tickets/{got.json['id']}?wait=20", **DESK)
            assert ended.json["status"] == "completed"
            assert (desk(w).requests, desk(w).running, used(w)) == (1, 0, {"requests": 1, "tokens": 12})

    run(test)


def test_a_call_that_an_engine_refused_counts_as_a_request_alone() -> None:
    async def test() -> None:
        async with world(refuse(400), config=keyed(KeyLimit(requests=5), KeyLimit(tokens=1_000))) as w:
            assert (await call(w)).status == 400
            assert used(w) == {"requests": 1, "tokens": 0}

    run(test)


def test_a_caller_who_leaves_pays_for_what_was_streamed() -> None:
    async def test() -> None:
        behave = stream_then(event("One"), event(" two"), then=never)
        async with world(behave, config=keyed(KeyLimit(tokens=1_000))) as w, Caller(w.port) as caller:
            caller.send(STREAM | {"max_tokens": 500}, headers=DESK)
            await caller.head()
            while b"two" not in await caller.piece():
                pass
            assert used(w)["tokens"] > 500
            caller.leave()
            await until(lambda: desk(w).requests == 1)
            assert desk(w).output_tokens == 2
            assert used(w)["tokens"] == desk(w).prompt_tokens + 2 < 30

    run(test)


def test_a_stream_that_breaks_pays_for_what_came() -> None:
    async def test() -> None:
        behave = stream_then(event("One"), event(" two"))
        async with world(behave, config=keyed(KeyLimit(requests=5), KeyLimit(tokens=1_000))) as w:
            await call(w, STREAM)
            assert (desk(w).requests, desk(w).output_tokens) == (1, 2)
            assert used(w) == {"requests": 1, "tokens": desk(w).prompt_tokens + 2}

    run(test)


def test_embeddings_count_their_prompt_alone() -> None:
    async def test() -> None:
        async with world(config=keyed(KeyLimit(tokens=20), KeyLimit(cost=20.0))) as w:
            got = await ask(w.port, {"model": MODEL, "input": "hello there"}, "/v1/embeddings", headers=DESK)
            assert got.status == 200
            assert used(w) == {"tokens": 9, "cost": 9}

    run(test)


def test_spend_is_kept_for_every_key_and_shows_no_key() -> None:
    async def test() -> None:
        async with world(config=keyed(KeyLimit(requests=5))) as w:
            await call(w)
            for body in (BODY, STREAM):
                await ask(w.port, body, headers=PLAIN)
            shown = {use.name: use for use in w.gateway.key_use()}
            assert (shown["desk"].requests, shown["desk"].cost) == (1, 15.0)
            plain = shown["plain"]
            assert (plain.requests, plain.prompt_tokens, plain.output_tokens, plain.cost) == (2, 18, 6, 30.0)
            text = msgspec.json.encode(w.gateway.key_use())
            for secret in (b"sk-desk", hashlib.sha256(b"sk-desk").hexdigest().encode()):
                assert secret not in text

    run(test)


def test_a_key_without_limits_pays_by_the_same_rules() -> None:
    def plain(w: World) -> tuple[int, int]:
        use = w.gateway.key_use()[1]
        return use.requests, use.output_tokens

    async def test() -> None:
        async with world(stream_then(event("One"), then=never), config=keyed()) as w:
            async with Caller(w.port) as caller:
                caller.send(STREAM, headers=PLAIN)
                await caller.head()
                while b"One" not in await caller.piece():
                    pass
            await until(lambda: plain(w) == (1, 1))
            w.engines[0].behave = refuse(400)
            assert (await ask(w.port, BODY, headers=PLAIN)).status == 400
            assert plain(w) == (2, 1)
            w.engines[0].behave = die
            assert (await ask(w.port, BODY, headers=PLAIN)).status == 503
            assert plain(w) == (2, 1)

    run(test)


def test_two_keys_of_one_name_share_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_KEYS", "desk:sk-second")

    async def test() -> None:
        async with world(config=keyed(KeyLimit(requests=2))) as w:
            statuses = [
                (await ask(w.port, BODY, headers={"authorization": f"Bearer {key}"})).status
                for key in ("sk-desk", "sk-second", "sk-second")
            ]
            assert statuses == [200, 200, 429]

    run(test)


def test_browsers_may_read_the_headers() -> None:
    async def test() -> None:
        config = keyed(KeyLimit(requests=2), listen=Listen(cors=("https://page.example",)))
        async with world(config=config) as w:
            got = await call(w, origin="https://page.example")
            exposed = got.headers["access-control-expose-headers"].split(", ")
            limits = {name for name in got.headers if "ratelimit" in name}
            assert limits and limits <= {*exposed}

    run(test)


def test_the_official_client_waits_as_told_and_is_served() -> None:
    async def test() -> None:
        hello = [{"role": "user", "content": "Hello"}]
        async with world(config=keyed(KeyLimit(requests=1, window_s=0.4))) as w:
            client: Any = AsyncOpenAI(base_url=f"http://127.0.0.1:{w.port}/v1", api_key="sk-desk", max_retries=2)
            async with client:
                for _ in range(3):
                    got = await client.chat.completions.create(model=MODEL, messages=hello, max_tokens=8)
                    assert got.usage.completion_tokens == 3
                assert desk(w).refused["requests"] >= 2
                raw = await client.chat.completions.with_raw_response.create(model=MODEL, messages=hello)
                assert raw.headers["x-ratelimit-limit-requests"] == "1"

    run(test)


def test_the_official_client_does_not_retry_what_can_never_fit() -> None:
    async def test() -> None:
        async with world(config=keyed(KeyLimit(tokens=50))) as w:
            client: Any = AsyncOpenAI(base_url=f"http://127.0.0.1:{w.port}/v1", api_key="sk-desk", max_retries=5)
            async with client:
                with pytest.raises(openai.RateLimitError) as refused:
                    await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}], max_tokens=500)
                assert refused.value.code == "rate_limit_exceeded"
                assert desk(w).refused == {"tokens": 1}

    run(test)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0119, "12ms"), (1, "1s"), (8.64, "8.64s"), (60, "1m0s"), (360, "6m0s"), (86_400, "24h0m0s"), (61.5, "1m1.5s")],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text.encode()


@pytest.fixture(autouse=True)
def _no_keys_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_KEYS", raising=False)
