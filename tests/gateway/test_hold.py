"""What callers see while they wait."""

from __future__ import annotations

import asyncio

import msgspec
from tests.gateway.world import (
    BODY,
    STREAM,
    WORDS,
    Asked,
    Caller,
    answer,
    ask,
    never,
    put_json,
    run,
    until,
    world,
)

from penstock.config import Config, Hold
from penstock.knobs import Knobs


def test_a_waiting_stream_is_told_its_place_after_the_quiet_time() -> None:
    async def test() -> None:
        config = Config(hold=Hold(quiet_s=0.1, interval_s=0.1))
        async with world(never, config=config, max_running=1) as w, Caller(w.port) as running, Caller(w.port) as waiting:
            running.send(BODY)
            await until(lambda: w.engines[0].open)
            waiting.send(STREAM)
            status, headers = await waiting.head()
            assert (status, headers["content-type"].split(";")[0]) == (200, "text/event-stream")
            for _ in range(3):
                piece = await waiting.piece()
                assert piece.startswith(b": queued position=1 eta_ms=")
                assert piece.endswith(b"\n\n")
            running.leave()
            while not (await waiting.piece()).startswith(b": keep-alive"):
                pass

    run(test)


def test_a_held_stream_still_gets_its_answer() -> None:
    async def behave(asked: Asked) -> None:
        await asyncio.sleep(0.3)
        await answer(asked)

    async def test() -> None:
        async with world(behave, config=Config(hold=Hold(quiet_s=0.05, interval_s=0.05))) as w:
            got = await ask(w.port, STREAM)
            assert got.body.startswith(b": keep-alive\n\n")
            assert (got.text, got.events[-1]) == ("".join(WORDS), b"[DONE]")

    run(test)


def test_a_held_stream_that_is_refused_ends_with_a_typed_error_and_no_done() -> None:
    async def test() -> None:
        config = Config(hold=Hold(quiet_s=0.05, interval_s=0.05), knobs=Knobs(queue_ttl_s=0.3))
        async with world(never, config=config, max_running=1) as w, Caller(w.port) as running:
            running.send(BODY)
            await until(lambda: w.engines[0].open)
            got = await ask(w.port, STREAM)
            assert (got.status, got.whole) == (200, True)
            error = msgspec.json.decode(got.events[-1])["error"]
            assert (error["code"], b"[DONE]" in got.body) == ("expired", False)
            assert error["retry_after_ms"] > 0

    run(test)


def test_a_held_stream_that_the_engine_refuses_is_told_so() -> None:
    async def behave(asked: Asked) -> None:
        await asyncio.sleep(0.2)
        put_json(asked, {"error": {"message": "no"}}, 400)

    async def test() -> None:
        async with world(behave, config=Config(hold=Hold(quiet_s=0.05))) as w:
            got = await ask(w.port, STREAM)
            assert msgspec.json.decode(got.events[-1])["error"]["code"] == "engine_refused"
            assert len(w.asked) == 1

    run(test)


def test_a_waiting_json_call_is_fed_newlines_only_where_asked_for() -> None:
    async def behave(asked: Asked) -> None:
        await asyncio.sleep(0.3)
        await answer(asked)

    async def test() -> None:
        for feed in (False, True):
            async with world(behave, config=Config(hold=Hold(quiet_s=0.05, interval_s=0.05, json=feed))) as w:
                got = await ask(w.port, BODY)
                assert got.body.startswith(b"\n") is feed
                assert got.json["choices"][0]["message"]["content"] == "".join(WORDS)

    run(test)


def test_a_held_json_call_that_is_refused_is_cut() -> None:
    async def test() -> None:
        config = Config(hold=Hold(quiet_s=0.05, interval_s=0.05, json=True), knobs=Knobs(queue_ttl_s=0.2))
        async with world(never, config=config, max_running=1) as w, Caller(w.port) as running:
            running.send(BODY)
            await until(lambda: w.engines[0].open)
            got = await ask(w.port, BODY)
            assert (got.status, got.whole, got.body.strip()) == (200, False, b"")

    run(test)
