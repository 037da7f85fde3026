"""Called back from an engine, on real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.gateway.world import BODY, STREAM, WORDS, Asked, Caller, answer, event, never, run, stream_then, until, world

from penstock.config import Class, Config, Range, When
from penstock.gateway.replay import replay

RULES = (
    Class(name="high", priority=5, ttft_ms=1_500, when=When(stream=True, prompt_tokens=Range(le=5_000))),
    Class(name="low", priority=1),
)
LONG = "x" * 200_000
"""Prompt bytes that take longer than `high` may wait, at the first guess of an engine's rate."""


def long(body: dict[str, object]) -> dict[str, object]:
    return body | {"messages": [{"role": "user", "content": LONG}]}


@pytest.mark.parametrize("body", [BODY, STREAM])
def test_a_long_prompt_is_taken_from_its_engine_for_an_urgent_one_and_served_after_it(body: dict[str, object], tmp_path: Path) -> None:
    at_work = asyncio.Event()

    async def engine(asked: Asked) -> None:
        if LONG.encode() in asked.body and not at_work.is_set():
            at_work.set()
            await never(asked)
        await answer(asked)

    async def test() -> None:
        config = Config(classes=RULES)
        async with world(engine, config=config, journal=tmp_path) as w, Caller(w.port) as low, Caller(w.port) as high:
            low.send(long(body))
            await at_work.wait()
            high.send(STREAM)
            got = await high.answer()
            assert (got.status, got.text) == (200, "".join(WORDS))
            got = await low.answer()
            assert (got.status, got.headers["x-penstock-served-by"]) == (200, "wait")
            assert [LONG.encode() in asked.body for asked in w.asked] == [True, False, True]
            assert w.asked[2].body == w.asked[0].body
            books = w.gateway.ledger.classes
            assert (books["low"].recalls, books["high"].recalls) == (1, 0)
            assert w.gateway.ledger.nodes["n0"].retries == 0

    run(test)
    assert replay(tmp_path).difference is None


def test_a_stream_that_has_begun_stays_where_it_is() -> None:
    async def engine(asked: Asked) -> None:
        if LONG.encode() in asked.body:
            await stream_then(event("One"), then=never)(asked)
        await answer(asked)

    async def test() -> None:
        async with world(engine, config=Config(classes=RULES), max_running=1) as w, Caller(w.port) as low, Caller(w.port) as high:
            low.send(long(STREAM))
            await low.head()
            assert b"One" in await low.piece()
            high.send(STREAM)
            got = await high.answer()
            assert got.status == 503
            await until(lambda: len(w.gateway.driver.calls) == 1)
            assert w.engines[0].open == 1

    run(test)
