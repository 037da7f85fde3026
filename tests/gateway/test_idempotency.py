"""Repeats with an Idempotency-Key get the first answer, and nothing runs twice."""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
import time
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from tests.gateway.world import (
    BODY,
    MODEL,
    STREAM,
    WORDS,
    Asked,
    Behave,
    Caller,
    World,
    answer,
    ask,
    event,
    never,
    put_json,
    refuse,
    run,
    stream_then,
    until,
    world,
)

from penstock.config import Class, Config, Hold, Idempotency, Key, KeyLimit, Limits, Rung
from penstock.gateway import idempotency
from penstock.gateway.idempotency import OVERHEAD_BYTES, Repeats
from penstock.knobs import Knobs

KEY = {"idempotency-key": "order-17"}
HELLO = [{"role": "user", "content": "Hello"}]


def repeats(w: World) -> Repeats:
    return w.gateway.app.repeats


def readers(w: World) -> int:
    return sum(len(shared._readers) for shared in repeats(w)._running.values())


def nothing_is_left(w: World) -> None:
    """Every byte is accounted to an answer that is kept."""
    assert not repeats(w)._running
    assert repeats(w).bytes == sum(kept.size for kept in repeats(w).kept.values())


def gate(behave: Behave = answer) -> tuple[asyncio.Event, Behave]:
    """An engine that answers when the event is set."""
    opened = asyncio.Event()

    async def wait(asked: Asked) -> None:
        await opened.wait()
        await behave(asked)

    return opened, wait


@pytest.mark.parametrize("body", [BODY, STREAM])
def test_a_repeat_gets_the_first_answer_and_an_id_of_its_own(body: dict[str, Any]) -> None:
    async def test() -> None:
        async with world() as w:
            first = await ask(w.port, body, headers=KEY)
            again = await ask(w.port, body, headers=KEY)
            assert (again.status, again.body, again.whole) == (first.status, first.body, True)
            assert again.headers["idempotent-replayed"] == "true"
            assert "idempotent-replayed" not in first.headers
            assert again.headers["x-request-id"] != first.headers["x-request-id"]
            same = ("content-type", "x-penstock-node")
            assert [again.headers[name] for name in same] == [first.headers[name] for name in same]
            assert len(w.asked) == 1
            nothing_is_left(w)

    run(test)


def test_other_keys_and_calls_without_one_run() -> None:
    async def test() -> None:
        async with world() as w, Caller(w.port) as caller:
            for headers in (KEY, {"idempotency-key": "another"}, {}, {}):
                caller.send(BODY, headers=headers)
                got = await caller.answer()
                assert (got.status, "idempotent-replayed" in got.headers) == (200, False)
            caller.send(BODY, headers=KEY)
            assert "idempotent-replayed" in (await caller.answer()).headers
            assert len(w.asked) == 4

    run(test)


def test_a_key_with_another_body_or_route_is_refused() -> None:
    async def test() -> None:
        opened, behave = gate()
        async with world(behave) as w, Caller(w.port) as first:
            first.send(BODY, headers=KEY)
            await until(lambda: w.asked)
            for moment in ("running", "kept"):
                for body, path in ((BODY | {"max_tokens": 9}, "/v1/chat/completions"), (BODY, "/v1/completions")):
                    got = await ask(w.port, body, path, headers=KEY)
                    assert (got.status, got.error["code"]) == (422, "idempotency_key_reused"), moment
                opened.set()
                await until(lambda: repeats(w).kept)
            assert (await first.answer()).status == 200
            assert len(w.asked) == 1
            assert w.gateway.host().repeats == {"replayed": 0, "joined": 0, "refused": 4}

    run(test)


@pytest.mark.parametrize("key", ["", "é", "x" * 256])
def test_a_key_must_be_printable_and_short(key: str) -> None:
    async def test() -> None:
        async with world() as w:
            got = await ask(w.port, BODY, headers={"idempotency-key": key})
            assert (got.status, got.error["code"]) == (400, "invalid_idempotency_key")
            assert (await ask(w.port, BODY, headers={"idempotency-key": "x" * 255})).status == 200

    run(test)


def test_tenants_do_not_see_each_others_answers() -> None:
    async def test() -> None:
        keys = tuple(Key(name=name, sha256=hashlib.sha256(name.encode()).hexdigest()) for name in ("a", "b"))
        async with world(config=Config(keys=keys)) as w:
            for name in ("a", "b", "a"):
                await ask(w.port, BODY, headers=KEY | {"authorization": f"Bearer {name}"})
            assert len(w.asked) == 2

    run(test)


def test_repeats_wait_for_the_running_first() -> None:
    async def test() -> None:
        opened, behave = gate()
        async with world(behave) as w:
            calls = [asyncio.ensure_future(ask(w.port, BODY, headers=KEY)) for _ in range(5)]
            await until(lambda: readers(w) == 5)
            opened.set()
            answers = await asyncio.gather(*calls)
            assert len({got.body for got in answers}) == 1
            assert sum("idempotent-replayed" in got.headers for got in answers) == 4
            assert len({got.headers["x-request-id"] for got in answers}) == 5
            assert "idempotent-replayed" in (await ask(w.port, BODY, headers=KEY)).headers
            assert w.gateway.host().repeats == {"replayed": 1, "joined": 4, "refused": 0}
            assert w.gateway.host().repeat_bytes == repeats(w).bytes > 0
            assert len(w.asked) == 1
            nothing_is_left(w)

    run(test)


def test_a_repeat_of_a_running_stream_gets_what_came_and_then_the_rest() -> None:
    async def test() -> None:
        opened = asyncio.Event()

        async def rest(asked: Asked) -> None:
            await opened.wait()
            asked.writer.write(event(" two") + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

        async with world(stream_then(event("One"), then=rest)) as w, Caller(w.port) as first, Caller(w.port) as second:
            first.send(STREAM, headers=KEY)
            status, _ = await first.head()
            while b"One" not in await first.piece():
                pass
            second.send(STREAM, headers=KEY)
            again, headers = await second.head()
            assert (status, again, headers["idempotent-replayed"]) == (200, 200, "true")
            assert b"One" in await second.piece()
            opened.set()
            tails = []
            for caller in (first, second):
                tail = b""
                while piece := await caller.piece():
                    tail += piece
                tails.append(tail)
            assert tails[0] == tails[1] and b" two" in tails[0] and b"[DONE]" in tails[0]
            assert len(w.asked) == 1
            third = await ask(w.port, STREAM, headers=KEY)
            assert third.text == "One two"
            nothing_is_left(w)

    run(test)


def test_the_first_caller_may_leave_while_repeats_wait() -> None:
    async def test() -> None:
        opened, behave = gate()
        async with world(behave) as w, Caller(w.port) as first, Caller(w.port) as second:
            first.send(BODY, headers=KEY)
            await until(lambda: readers(w) == 1)
            second.send(BODY, headers=KEY)
            await until(lambda: readers(w) == 2)
            first.leave()
            await until(lambda: readers(w) == 1)
            opened.set()
            assert (await second.answer()).status == 200
            assert len(w.asked) == 1

    run(test)


def test_a_stream_whose_last_reader_leaves_is_stopped_at_once_and_its_key_is_free() -> None:
    async def test() -> None:
        async with world(stream_then(event("One"), then=never)) as w, Caller(w.port) as first, Caller(w.port) as second:
            for caller in (first, second):
                caller.send(STREAM, headers=KEY)
                await caller.head()
            first.leave()
            await until(lambda: readers(w) == 1)
            assert w.engines[0].open == 1
            second.leave()
            left = time.monotonic()
            await until(lambda: not w.engines[0].open)
            assert time.monotonic() - left < 0.1
            nothing_is_left(w)
            w.engines[0].behave = answer
            assert "idempotent-replayed" not in (await ask(w.port, STREAM, headers=KEY)).headers

    run(test)


def test_a_call_on_an_engine_outlives_a_caller_who_comes_back_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "PATIENCE_S", 0.2)

    async def test() -> None:
        async with world(never) as w, Caller(w.port) as first:
            first.send(BODY, headers=KEY)
            await until(lambda: w.engines[0].open)
            first.leave()
            await until(lambda: not readers(w))
            assert w.engines[0].open and repeats(w)._running
            await until(lambda: not w.engines[0].open)
            nothing_is_left(w)

    run(test)


def test_a_call_that_waits_in_the_queue_goes_with_its_caller() -> None:
    async def test() -> None:
        async with world(never, max_running=1) as w, Caller(w.port) as busy, Caller(w.port) as waiting:
            busy.send(BODY)
            await until(lambda: w.engines[0].open)
            waiting.send(BODY, headers=KEY)
            await until(lambda: readers(w))
            waiting.leave()
            await until(lambda: len(w.gateway.driver.calls) == 1)
            nothing_is_left(w)

    run(test)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_what_engines_failed_is_not_kept(status: int) -> None:
    async def test() -> None:
        async with world(refuse(status)) as w:
            assert (await ask(w.port, BODY, headers=KEY)).status == 503
            nothing_is_left(w)
            w.engines[0].behave = answer
            await until(lambda: w.gateway.core.ready())
            got = await ask(w.port, BODY, headers=KEY)
            assert (got.status, "idempotent-replayed" in got.headers) == (200, False)

    run(test)


def test_what_was_refused_unrun_is_not_kept_and_all_that_wait_are_told() -> None:
    async def test() -> None:
        config = Config(classes=(Class(name="tight", ttft_ms=300),), knobs=Knobs())
        async with world(never, config=config, max_running=1) as w, Caller(w.port) as busy:
            busy.send(BODY)
            await until(lambda: w.engines[0].open)
            answers = await asyncio.gather(*(ask(w.port, BODY, headers=KEY) for _ in range(3)))
            assert {got.status for got in answers} == {503}
            assert len(w.asked) == 1
            nothing_is_left(w)

    run(test)


def test_an_engines_4xx_is_an_answer_like_others() -> None:
    async def test() -> None:
        async with world(refuse(400, {"error": {"message": "no such tool"}})) as w:
            answers = [await ask(w.port, BODY, headers=KEY) for _ in range(2)]
            assert [got.status for got in answers] == [400, 400]
            assert answers[0].body == answers[1].body
            assert len(w.asked) == 1

    run(test)


def test_a_stream_that_broke_is_not_kept() -> None:
    async def test() -> None:
        async with world(stream_then(event("One"))) as w:
            assert b"error" in (await ask(w.port, STREAM, headers=KEY)).body
            nothing_is_left(w)
            w.engines[0].behave = answer
            assert (await ask(w.port, STREAM, headers=KEY)).text == "".join(WORDS)

    run(test)


def test_a_large_answer_that_broke_is_cut_for_all_and_not_kept() -> None:
    async def half(asked: Asked) -> None:
        asked.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900000\r\n\r\n" + b"x" * 400_000)
        await asked.writer.drain()
        await opened.wait()
        asked.writer.transport.abort()

    opened = asyncio.Event()

    async def test() -> None:
        async with world(half, config=Config(limits=Limits(buffer_bytes=65_536))) as w:
            calls = [asyncio.ensure_future(ask(w.port, BODY, headers=KEY)) for _ in range(2)]
            await until(lambda: readers(w) == 2 and any(shared.started for shared in repeats(w)._running.values()))
            opened.set()
            answers = await asyncio.gather(*calls)
            assert [(got.status, got.whole) for got in answers] == [(200, False)] * 2
            nothing_is_left(w)
            assert not repeats(w).kept

    run(test)


def test_answers_are_forgotten_when_their_time_is_over() -> None:
    async def test() -> None:
        async with world(config=Config(idempotency=Idempotency(window_s=0.2))) as w:
            await ask(w.port, BODY, headers=KEY)
            assert "idempotent-replayed" in (await ask(w.port, BODY, headers=KEY)).headers
            await asyncio.sleep(0.21)
            assert "idempotent-replayed" not in (await ask(w.port, BODY, headers=KEY)).headers
            assert len(repeats(w).kept) == 1
            nothing_is_left(w)

    run(test)


def test_memory_is_bounded_and_the_oldest_answers_go_first() -> None:
    async def test() -> None:
        most = 20 * OVERHEAD_BYTES
        async with world(config=Config(idempotency=Idempotency(bytes=most))) as w, Caller(w.port) as caller:
            for number in range(50):
                caller.send(BODY, headers={"idempotency-key": str(number)})
                assert (await caller.answer()).status == 200
                assert repeats(w).bytes <= most
                nothing_is_left(w)
            assert 10 <= len(repeats(w).kept) < 20
            assert "idempotent-replayed" in (await ask(w.port, BODY, headers={"idempotency-key": "49"})).headers
            assert "idempotent-replayed" not in (await ask(w.port, BODY, headers={"idempotency-key": "0"})).headers

    run(test)


def test_an_answer_larger_than_the_memory_is_served_but_not_kept_and_cannot_be_joined() -> None:
    async def test() -> None:
        opened = asyncio.Event()

        async def rest(asked: Asked) -> None:
            await opened.wait()
            asked.writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

        behave = stream_then(*(event("x" * 1_000) for _ in range(8)), then=rest)
        async with world(behave, config=Config(idempotency=Idempotency(bytes=4_096))) as w, Caller(w.port) as first:
            first.send(STREAM, headers=KEY)
            await until(lambda: any(not shared._keeping for shared in repeats(w)._running.values()))
            assert repeats(w).bytes <= 4_096
            again = await ask(w.port, STREAM, headers=KEY)
            assert (again.status, again.error["code"], again.headers["retry-after"]) == (409, "idempotency_in_progress", "1")
            opened.set()
            assert len((await first.answer()).text) == 8_000
            assert not repeats(w).kept
            nothing_is_left(w)

    run(test)


def test_a_large_json_answer_is_relayed_to_all_and_kept() -> None:
    async def large(asked: Asked) -> None:
        put_json(asked, {"choices": [], "padding": "x" * 600_000})

    async def test() -> None:
        opened, behave = gate(large)
        async with world(behave, config=Config(limits=Limits(buffer_bytes=65_536))) as w:
            calls = [asyncio.ensure_future(ask(w.port, BODY, headers=KEY)) for _ in range(3)]
            await until(lambda: readers(w) == 3)
            opened.set()
            answers = [*await asyncio.gather(*calls), await ask(w.port, BODY, headers=KEY)]
            assert {(got.status, got.whole, len(got.body)) for got in answers} == {(200, True, len(answers[0].body))}
            assert len(answers[0].body) > 600_000
            assert len(w.asked) == 1

    run(test)


def test_a_reader_that_does_not_read_does_not_pile_up_memory() -> None:
    async def flood(asked: Asked) -> None:
        asked.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            asked.writer.write(event("x" * 10_000))
            await asked.writer.drain()
            sent.append(10_000)

    sent: list[int] = []

    async def test() -> None:
        async with world(flood) as w, Caller(w.port) as first, Caller(w.port) as second:
            for caller in (first, second):
                caller.send(STREAM, headers=KEY)
                await caller.head()

            # `first` reads on; `second` never does.
            async def read() -> None:
                while await first.piece():
                    pass

            reading = asyncio.ensure_future(read())
            await until(lambda: any(shared.paused for shared in repeats(w)._running.values()))
            size = -1
            while size != len(sent):
                size = len(sent)
                await asyncio.sleep(0.05)
            second.leave()
            await until(lambda: len(sent) > size + 100)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    run(test)


def test_repeats_of_a_held_stream_hear_the_signs_of_life_and_the_answer() -> None:
    async def test() -> None:
        opened, behave = gate()
        hold = Hold(quiet_s=0.02, interval_s=0.05)
        async with world(behave, config=Config(hold=hold)) as w:
            calls = [asyncio.ensure_future(ask(w.port, STREAM, headers=KEY))]
            await until(lambda: any(shared.started for shared in repeats(w)._running.values()))
            calls.append(asyncio.ensure_future(ask(w.port, STREAM, headers=KEY)))
            await until(lambda: readers(w) == 2)
            opened.set()
            for got in await asyncio.gather(*calls):
                assert got.text == "".join(WORDS)
                assert b": keep-alive" in got.body

    run(test)


def test_a_repeat_costs_nothing_of_a_limit_and_its_headers_are_of_now() -> None:
    async def test() -> None:
        key = Key(name="desk", sha256=hashlib.sha256(b"sk-desk").hexdigest(), limits=(KeyLimit(requests=3),))
        async with world(config=Config(keys=(key,))) as w:
            headers = {"authorization": "Bearer sk-desk"}
            await ask(w.port, BODY, headers=headers | KEY)
            await ask(w.port, BODY, headers=headers)
            again = await ask(w.port, BODY, headers=headers | KEY)
            assert (again.status, again.headers["x-ratelimit-remaining-requests"]) == (200, "1")

    run(test)


def test_a_retry_of_the_official_client_after_a_read_timeout_joins_the_running_call() -> None:
    async def test() -> None:
        opened, behave = gate()
        async with world(behave) as w:
            client: Any = AsyncOpenAI(base_url=f"http://127.0.0.1:{w.port}/v1", api_key="none", max_retries=3, timeout=0.4)
            async with client:
                call = asyncio.ensure_future(
                    client.chat.completions.create(model=MODEL, messages=HELLO, extra_headers={"Idempotency-Key": "stainless-1"})
                )
                await until(lambda: readers(w) == 1)
                await until(lambda: readers(w) == 0)
                await until(lambda: readers(w) == 1)
                opened.set()
                assert (await call).choices[0].message.content == "".join(WORDS)
            assert len(w.asked) == 1

    run(test)


def test_an_official_client_that_sends_its_own_keys_runs_each_call_once() -> None:
    async def test() -> None:
        opened, behave = gate()
        async with world(behave) as w:
            client: Any = AsyncOpenAI(base_url=f"http://127.0.0.1:{w.port}/v1", api_key="none", max_retries=3, timeout=0.4)
            client._idempotency_header = "Idempotency-Key"
            async with client:
                calls = [asyncio.ensure_future(client.chat.completions.create(model=MODEL, messages=HELLO)) for _ in range(4)]
                await until(lambda: readers(w) == 4)
                await until(lambda: readers(w) == 0)
                await until(lambda: readers(w) == 4)
                opened.set()
                assert len(await asyncio.gather(*calls)) == 4
            assert len(w.asked) == 4

    run(test)


def test_a_reused_key_raises_in_the_official_client() -> None:
    async def test() -> None:
        async with world() as w:
            client: Any = AsyncOpenAI(base_url=f"http://127.0.0.1:{w.port}/v1", api_key="none")
            async with client:
                create = client.chat.completions.create
                await create(model=MODEL, messages=HELLO, extra_headers=KEY)
                with pytest.raises(openai.UnprocessableEntityError) as refused:
                    await create(model=MODEL, messages=HELLO, max_tokens=5, extra_headers=KEY)
                assert refused.value.code == "idempotency_key_reused"

    run(test)


def test_callers_that_come_and_go_at_random_leave_nothing_behind_and_no_key_runs_twice_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "PATIENCE_S", 0.02)
    chance = random.Random(5)
    at_once: dict[bytes, int] = {}

    async def behave(asked: Asked) -> None:
        at_once[asked.body] = at_once.get(asked.body, 0) + 1
        assert at_once[asked.body] == 1
        try:
            await asyncio.sleep(chance.random() * 0.05)
            if chance.random() < 0.2:
                await refuse(500)(asked)
            else:
                await answer(asked)
        finally:
            at_once[asked.body] -= 1

    async def one(w: World) -> None:
        number = chance.randrange(8)
        async with Caller(w.port) as caller:
            caller.send((STREAM if number % 2 else BODY) | {"seed": number}, headers={"idempotency-key": str(number)})
            if chance.random() < 0.4:
                await asyncio.sleep(chance.random() * 0.05)
                caller.leave()
            else:
                assert (await caller.answer()).status in (200, 503)

    async def test() -> None:
        config = Config(idempotency=Idempotency(window_s=0.1, bytes=8_192))
        async with world(behave, behave, config=config) as w:
            for _ in range(20):
                await asyncio.gather(*(one(w) for _ in range(10)))
            await until(lambda: not w.gateway.driver.calls)
            nothing_is_left(w)
            assert repeats(w).bytes <= 8_192

    run(test)


@pytest.mark.parametrize("body", [BODY, STREAM])
def test_a_repeat_right_behind_the_first_on_its_connection_is_answered(body: dict[str, Any]) -> None:
    async def test() -> None:
        async with world() as w, Caller(w.port) as caller:
            for _ in range(3):
                caller.send(body, headers=KEY)
            got = [await caller.answer() for _ in range(3)]
            assert [(one.status, one.body) for one in got] == [(200, got[0].body)] * 3
            assert len(w.asked) == 1
            nothing_is_left(w)

    run(test)


def test_a_repeat_right_behind_a_failure_runs() -> None:
    async def test() -> None:
        async with world(refuse(500)) as w, Caller(w.port) as caller:
            for _ in range(2):
                caller.send(BODY, headers=KEY)
            got = [(await caller.answer()).status for _ in range(2)]
            assert got == [503, 503] and len(w.asked) == 2
            nothing_is_left(w)

    run(test)


def test_a_repeat_of_a_ticket_whose_caller_left_before_it_was_stored_gets_one_of_its_own() -> None:
    async def test() -> None:
        async with world() as w:
            jobs = w.gateway.jobs
            assert jobs is not None
            held = threading.Event()
            slow = asyncio.ensure_future(jobs.tickets.store.run(lambda _: held.wait()))
            caller = await Caller(w.port).__aenter__()
            caller.send(BODY, headers=KEY | {"prefer": "respond-async"})
            await until(lambda: readers(w))
            caller.leave()
            await until(lambda: not readers(w))
            again = asyncio.ensure_future(ask(w.port, BODY, headers=KEY | {"prefer": "respond-async"}))
            await until(lambda: readers(w))
            held.set()
            got = await again
            assert got.status == 202 and "idempotent-replayed" not in got.headers
            await slow
            await until(lambda: not repeats(w)._running)
            assert (await ask(w.port, BODY, headers=KEY | {"prefer": "respond-async"})).json["id"] == got.json["id"]
            nothing_is_left(w)

    run(test)


@pytest.mark.parametrize("body", [BODY, STREAM])
def test_a_repeat_of_a_call_that_its_ladder_made_a_ticket_gets_the_same_ticket(body: dict[str, Any]) -> None:
    async def test() -> None:
        config = Config(classes=(Class(name="it", ladder=(Rung.TICKET,)),))
        async with world(never, config=config, max_running=1) as w, Caller(w.port) as busy:
            busy.send(BODY)
            await until(lambda: w.engines[0].open)
            first, joined = await asyncio.gather(ask(w.port, body, headers=KEY), ask(w.port, body, headers=KEY))
            later = await ask(w.port, body, headers=KEY)
            assert [one.status for one in (first, joined, later)] == [202] * 3
            assert first.json["id"] == joined.json["id"] == later.json["id"]
            jobs = w.gateway.jobs
            assert jobs is not None and len(jobs.tickets.jobs) == 1
            nothing_is_left(w)

    run(test)
