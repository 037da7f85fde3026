"""The official client against the gateway."""

from __future__ import annotations

import time
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from tests.gateway.world import MODEL, WORDS, Asked, World, answer, event, never, put_json, run, stream_then, until, world

from penstock.config import Class, Config

HELLO = [{"role": "user", "content": "Hello"}]


def _client(w: World, retries: int = 0, key: str = "sk-none") -> Any:
    """The client, its 40 overloads left out of the type check."""
    return AsyncOpenAI(base_url=f"http://127.0.0.1:{w.port}/v1", api_key=key, max_retries=retries)


def test_plain_answers() -> None:
    async def test() -> None:
        async with world() as w, _client(w) as client:
            got = await client.chat.completions.create(model=MODEL, messages=HELLO)
            assert got.choices[0].message.content == "".join(WORDS)
            assert got.usage is not None
            assert got.usage.completion_tokens == 3
            assert [model.id for model in (await client.models.list()).data] == [MODEL]

    run(test)


def test_streams_with_usage() -> None:
    async def test() -> None:
        async with world() as w, _client(w) as client:
            options = {"include_usage": True}
            stream = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, stream_options=options)
            parts = [part async for part in stream]
            assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == "".join(WORDS)
            assert parts[-1].usage.prompt_tokens == 9

    run(test)


def test_errors_have_their_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_KEYS", "desk:sk-desk")

    async def test() -> None:
        async with world() as w, _client(w) as stranger, _client(w, key="sk-desk") as client:
            with pytest.raises(openai.AuthenticationError):
                await stranger.chat.completions.create(model=MODEL, messages=HELLO)
            with pytest.raises(openai.NotFoundError) as unknown:
                await client.chat.completions.create(model="gpt-9", messages=HELLO)
            assert unknown.value.code == "model_not_found"
            with pytest.raises(openai.BadRequestError) as bad:
                await client.chat.completions.create(model=MODEL, messages=HELLO, n=1000)
            assert bad.value.param == "n"
            assert bad.value.request_id

    run(test)


def test_a_refusal_is_retried_when_it_said_so() -> None:
    async def test() -> None:
        config = Config(classes=(Class(name="tight", ttft_ms=0.001),))
        async with world(config=config) as w, _client(w, retries=1) as client:
            began = time.monotonic()
            with pytest.raises(openai.InternalServerError) as refused:
                await client.chat.completions.create(model=MODEL, messages=HELLO)
            assert refused.value.status_code == 503
            assert refused.value.code == "refused_deadline"
            # The first retry comes no sooner than the first answer asked for, which is at least half a second.
            assert time.monotonic() - began >= 0.5
            assert sum(w.gateway.ledger.classes["tight"].outcomes.values()) == 2

    run(test)


def test_a_retry_after_a_failure_is_served() -> None:
    async def once(asked: Asked) -> None:
        if len(seen) == 0:
            seen.append(asked)
            put_json(asked, {}, 500)
        else:
            await answer(asked)

    seen: list[Asked] = []

    async def test() -> None:
        async with world(once) as w, _client(w, retries=2) as client:
            got = await client.chat.completions.create(model=MODEL, messages=HELLO)
            assert got.choices[0].message.content == "".join(WORDS)

    run(test)


def test_a_stream_that_fails_midway_raises() -> None:
    async def test() -> None:
        async with world(stream_then(event("One"))) as w, _client(w) as client:
            stream = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
            with pytest.raises(openai.APIError, match="failed"):
                async for _ in stream:
                    pass

    run(test)


def test_closing_a_stream_frees_the_engine_within_100_ms() -> None:
    async def test() -> None:
        async with world(stream_then(event("One"), then=never)) as w, _client(w) as client:
            stream = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
            await anext(aiter(stream))
            await stream.close()
            left = time.monotonic()
            await until(lambda: not w.engines[0].open)
            assert time.monotonic() - left < 0.1

    run(test)
