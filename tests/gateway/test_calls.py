"""A call's life, from both ends of the gateway."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from tests.gateway.world import (
    BODY,
    MODEL,
    STREAM,
    USAGE,
    WORDS,
    Asked,
    Caller,
    Engine,
    answer,
    ask,
    chunk,
    die,
    event,
    never,
    put_json,
    refuse,
    run,
    stream_then,
    until,
    world,
)

from penstock.config import Class, Config, Limits
from penstock.knobs import Knobs


def test_a_whole_answer_comes_back_as_the_engine_gave_it() -> None:
    async def test() -> None:
        async with world() as w:
            got = await ask(w.port, BODY)
            assert got.status == 200
            assert got.headers["content-type"] == "application/json"
            assert got.json["choices"][0]["message"]["content"] == "".join(WORDS)
            assert got.headers["x-penstock-node"] == "n0"
            assert got.headers["x-penstock-queue-ms"].isdigit()
            assert got.headers["x-request-id"] == got.headers["x-penstock-request-id"]
            assert not {"set-cookie", "server"} & set(got.headers)

    run(test)


def test_the_engine_gets_the_bytes_that_came_in_and_nothing_of_the_callers_head() -> None:
    async def test() -> None:
        async with world() as w:
            body = msgspec.json.encode(BODY | {"temperature": 0.25, "seed": 2**53 + 1})
            secrets = {
                "authorization": "Bearer sk-canary",
                "cookie": "canary=1",
                "x-forwarded-for": "canary",
                "proxy-authorization": "canary",
            }
            await ask(w.port, body, headers=secrets | {"x-request-id": "canary-id", "user-agent": "canary"})
            [asked] = w.asked
            assert asked.body == body
            assert asked.line == "POST /v1/chat/completions HTTP/1.1"
            assert set(asked.headers) == {"host", "user-agent", "content-type", "content-length"}
            assert "canary" not in str(asked.headers)

    run(test)


def test_the_engines_key_goes_to_the_engine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_KEY", "sk-engine-canary")

    async def test() -> None:
        async with world(key_env="ENGINE_KEY") as w:
            got = await ask(w.port, BODY)
            assert w.asked[0].headers["authorization"] == "Bearer sk-engine-canary"
            assert "canary" not in str(got)

    run(test)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/beta/chat/completions"])
def test_chat_is_served_under_each_of_its_names(path: str) -> None:
    async def test() -> None:
        async with world() as w:
            assert (await ask(w.port, BODY, path)).status == 200
            assert w.asked[0].line.split()[1] == "/v1/chat/completions"

    run(test)


@pytest.mark.parametrize("path", ["/v1/completions", "/completions", "/beta/completions"])
def test_completions_are_served_under_each_of_their_names(path: str) -> None:
    async def test() -> None:
        async with world() as w:
            assert (await ask(w.port, {"model": MODEL, "prompt": "Once"}, path)).status == 200
            assert w.asked[0].line.split()[1] == "/v1/completions"

    run(test)


def test_embeddings_are_served_whole_however_large() -> None:
    numbers = [0.125] * 400_000

    async def behave(asked: Asked) -> None:
        put_json(asked, {"object": "list", "data": [{"embedding": numbers}], "usage": {"prompt_tokens": 2}})

    async def test() -> None:
        async with world(behave) as w:
            got = await ask(w.port, {"model": MODEL, "input": "Once"}, "/v1/embeddings")
            assert got.json["data"][0]["embedding"] == numbers
            assert int(got.headers["content-length"]) == len(got.body) > w.gateway.config.limits.buffer_bytes
            await until(lambda: not w.gateway.driver.calls)

    run(test)


def test_a_stream_is_relayed_to_its_end() -> None:
    async def test() -> None:
        async with world() as w:
            got = await ask(w.port, STREAM)
            assert got.headers["content-type"].startswith("text/event-stream")
            assert got.headers["transfer-encoding"] == "chunked"
            assert got.headers["x-penstock-node"] == "n0"
            assert got.text == "".join(WORDS)
            assert got.events[-1] == b"[DONE]"

    run(test)


@pytest.mark.parametrize("asked", [False, True])
def test_usage_is_asked_of_the_engine_and_shown_only_to_who_asked(asked: bool) -> None:
    async def test() -> None:
        async with world() as w:
            got = await ask(w.port, STREAM | ({"stream_options": {"include_usage": True}} if asked else {}))
            assert w.asked[0].json["stream_options"]["include_usage"] is True
            shown = [data for data in got.events[:-1] if msgspec.json.decode(data).get("usage")]
            assert [msgspec.json.decode(data)["usage"] for data in shown] == ([USAGE] if asked else [])

    run(test)


def test_an_alias_reaches_the_engine_as_its_own_name() -> None:
    async def test() -> None:
        async with world(config=Config(aliases={"gpt-4o": MODEL})) as w:
            assert (await ask(w.port, BODY | {"model": "gpt-4o"})).status == 200
            assert w.asked[0].json["model"] == MODEL

    run(test)


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_an_engines_refusal_of_the_request_is_the_callers_answer(status: int) -> None:
    async def test() -> None:
        async with world(refuse(status, {"error": {"message": "bad temperature"}}), answer) as w:
            got = await ask(w.port, BODY)
            if got.headers["x-penstock-node"] == "n0":
                assert (got.status, got.error["message"]) == (status, "bad temperature")
            got = await ask(w.port, STREAM)
            if got.headers["x-penstock-node"] == "n0":
                assert (got.status, got.error["message"]) == (status, "bad temperature")
            assert len(w.asked) == 2

    run(test)


@pytest.mark.parametrize("body", [BODY, STREAM])
@pytest.mark.parametrize("bad", [die, refuse(500), refuse(503), refuse(429), refuse(401), refuse(302)])
def test_a_call_that_a_node_failed_is_served_by_another(bad: object, body: dict[str, object]) -> None:
    async def test() -> None:
        async with world(bad, answer) as w:  # type: ignore[arg-type]
            for _ in range(6):
                got = await ask(w.port, body)
                assert (got.status, got.headers["x-penstock-node"]) == (200, "n1")
            assert w.engines[0].asked

    run(test)


def test_a_node_that_is_not_there_is_survived() -> None:
    async def test() -> None:
        async with world(answer, answer) as w:
            await w.engines[0].stop()
            for _ in range(6):
                assert (await ask(w.port, BODY)).headers["x-penstock-node"] == "n1"

    run(test)


def test_a_stream_that_dies_before_content_starts_again_elsewhere() -> None:
    async def test() -> None:
        async with world(stream_then(event()), answer) as w:
            for _ in range(4):
                got = await ask(w.port, STREAM)
                assert (got.text, got.headers["x-penstock-node"]) == ("".join(WORDS), "n1")
            assert w.engines[0].asked

    run(test)


def test_a_stream_that_dies_after_content_ends_with_a_typed_error_and_no_done() -> None:
    async def test() -> None:
        async with world(stream_then(event("One"))) as w:
            got = await ask(w.port, STREAM)
            assert (got.status, got.whole) == (200, True)
            assert b"[DONE]" not in got.body
            error = msgspec.json.decode(got.events[-1])["error"]
            assert error["code"] == "failed"
            assert error["retry_after_ms"] > 0
            assert len(w.asked) == 1

    run(test)


def test_a_whole_answer_that_dies_is_refused_with_a_time_to_come_back() -> None:
    async def behave(asked: Asked) -> None:
        asked.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
        await die(asked)

    async def test() -> None:
        async with world(behave) as w:
            got = await ask(w.port, BODY)
            _assert_refused(got.status, got.headers, got.error, "failed")

    run(test)


def test_a_large_answer_that_dies_is_cut_where_the_caller_can_see_it() -> None:
    async def behave(asked: Asked) -> None:
        asked.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        asked.writer.write(chunk(b"[" + b"1," * 200_000))
        await asyncio.sleep(0.05)
        await die(asked)

    async def test() -> None:
        async with world(behave) as w:
            got = await ask(w.port, BODY)
            assert (got.status, got.whole) == (200, False)
            assert len(w.asked) == 1

    run(test)


def test_an_answer_that_is_no_http_is_a_bad_gateway() -> None:
    async def behave(asked: Asked) -> None:
        asked.writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

    async def test() -> None:
        async with world(behave) as w:
            got = await ask(w.port, BODY)
            assert (got.status, got.error["code"]) == (502, "failed")
            assert "retry-after" in got.headers

    run(test)


def _assert_refused(status: int, headers: dict[str, str], error: dict[str, object], outcome: str) -> None:
    assert status == 503
    after_ms = int(headers["retry-after-ms"])
    assert after_ms > 0
    assert int(headers["retry-after"]) == -(-after_ms // 1000)
    assert headers["x-should-retry"] == "true"
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"]
    assert error["code"] == outcome
    assert error["retry_after_ms"] == after_ms
    assert isinstance(error["eta_ms"], int)
    assert error["eta_ms"] >= after_ms
    assert error["reason"]
    assert error["message"]


def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    async def test() -> None:
        async with world(never, config=Config(knobs=Knobs(queue_max=1)), max_running=1) as w:
            async with Caller(w.port) as running, Caller(w.port) as waiting:
                running.send(BODY)
                await until(lambda: w.engines[0].open)
                waiting.send(BODY)
                await until(lambda: len(w.gateway.driver.calls) == 2)
                got = await ask(w.port, BODY)
                _assert_refused(got.status, got.headers, got.error, "refused_full")
            await until(lambda: not w.gateway.driver.calls)

    run(test)


def test_what_no_node_can_begin_in_time_is_refused_at_once() -> None:
    async def test() -> None:
        config = Config(classes=(Class(name="tight", ttft_ms=0.001),))
        async with world(never, config=config) as w:
            got = await ask(w.port, BODY)
            _assert_refused(got.status, got.headers, got.error, "refused_deadline")
            assert not w.asked

    run(test)


def test_what_waited_past_its_deadline_is_refused() -> None:
    async def test() -> None:
        async with world(never, config=Config(knobs=Knobs(queue_ttl_s=0.1)), max_running=1) as w, Caller(w.port) as running:
            running.send(BODY)
            await until(lambda: w.engines[0].open)
            got = await ask(w.port, BODY)
            _assert_refused(got.status, got.headers, got.error, "expired")
            assert int(got.headers["x-penstock-queue-ms"]) >= 100

    run(test)


def test_a_caller_who_leaves_frees_the_engine_at_once() -> None:
    async def test() -> None:
        async with world(never, stream_then(event("One"), then=never)) as w:
            for body in (BODY, STREAM) * 4:
                async with Caller(w.port) as caller:
                    caller.send(body)
                    await until(lambda: sum(engine.open for engine in w.engines) == 1)
                    await asyncio.sleep(0.02)
                    caller.leave()
                    loop = asyncio.get_running_loop()
                    left = loop.time()
                    await until(lambda: not any(engine.open for engine in w.engines))
                    assert loop.time() - left < 0.1
            assert not w.gateway.driver.calls
            assert all(node.running == 0 for node in w.gateway.core.snapshot(0.0).nodes)

    run(test)


def test_a_caller_who_leaves_the_queue_never_reaches_an_engine() -> None:
    async def test() -> None:
        async with world(never, max_running=1) as w, Caller(w.port) as running:
            running.send(BODY)
            await until(lambda: w.engines[0].open)
            async with Caller(w.port) as waiting:
                waiting.send(BODY)
                await until(lambda: len(w.gateway.driver.calls) == 2)
            await until(lambda: len(w.gateway.driver.calls) == 1)
            assert len(w.asked) == 1

    run(test)


def test_a_freed_slot_goes_to_who_waits() -> None:
    gate = asyncio.Event()

    async def behave(asked: Asked) -> None:
        await gate.wait()
        await answer(asked)

    async def test() -> None:
        async with world(behave, max_running=1) as w:
            answers = [asyncio.ensure_future(ask(w.port, BODY)) for _ in range(5)]
            await until(lambda: len(w.gateway.driver.calls) == 5 and w.asked)
            assert len(w.asked) == 1
            gate.set()
            assert [got.status for got in await asyncio.gather(*answers)] == [200] * 5

    run(test)


def test_a_caller_who_reads_slowly_holds_the_engine_back() -> None:
    block = event("x" * 60_000)

    async def behave(asked: Asked) -> None:
        asked.writer.write(SSE)
        for _ in range(500):
            asked.writer.write(block)
            await asked.writer.drain()
            sent.append(1)
        asked.writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    sent: list[int] = []

    async def test() -> None:
        async with world(behave) as w, Caller(w.port) as caller:
            caller.send(STREAM)
            await caller.head()
            quiet = 0
            while quiet < 20:
                before = len(sent)
                await asyncio.sleep(0.01)
                quiet = quiet + 1 if len(sent) == before else 0
            assert len(sent) < 400
            total = 0
            while piece := await caller.piece():
                total += len(piece)
            assert total > 500 * 60_000

    run(test)


def test_a_large_request_is_let_go_once_its_answer_streams() -> None:
    async def test() -> None:
        async with world(stream_then(event("One"), then=never)) as w, Caller(w.port) as caller:
            caller.send(STREAM | {"messages": [{"role": "user", "content": "x" * 100_000}]})
            await caller.head()
            [call] = w.gateway.driver.calls.values()
            assert not call.ask.body
            assert not call.exchange.body
            assert len(w.asked[0].body) > 100_000

    run(test)


def test_calls_on_one_connection_are_answered_one_after_the_other() -> None:
    async def test() -> None:
        async with world() as w, Caller(w.port) as caller:
            for body in (BODY, STREAM, BODY):
                caller.send(body)
            assert [(await caller.answer()).status for _ in range(3)] == [200] * 3

    run(test)


def test_a_silent_engine_is_given_up_on() -> None:
    async def test() -> None:
        async with world(never, config=Config(limits=Limits(first_byte_s=0.2))) as w:
            got = await ask(w.port, BODY)
            _assert_refused(got.status, got.headers, got.error, "failed")
            assert "timeout" in str(got.error["reason"])

    run(test)


def test_draining_lets_calls_end_and_takes_no_more() -> None:
    gate = asyncio.Event()

    async def behave(asked: Asked) -> None:
        await gate.wait()
        await answer(asked)

    async def test() -> None:
        async with world(behave) as w:
            under_way = asyncio.ensure_future(ask(w.port, STREAM))
            await until(lambda: w.asked)
            stopping = asyncio.ensure_future(w.gateway.stop(10.0))
            await asyncio.sleep(0.02)
            with pytest.raises(ConnectionRefusedError):
                await ask(w.port, BODY)
            gate.set()
            assert (await under_way).events[-1] == b"[DONE]"
            await stopping

    run(test)


def test_engines_see_no_more_than_they_take() -> None:
    most = 0

    async def behave(asked: Asked) -> None:
        nonlocal most
        most = max(most, sum(engine.open for engine in engines))
        await asyncio.sleep(0.005)
        await answer(asked)

    engines: list[Engine] = []

    async def test() -> None:
        async with world(behave, behave, max_running=2) as w:
            engines.extend(w.engines)
            got = await asyncio.gather(*(ask(w.port, BODY) for _ in range(40)))
            assert {one.status for one in got} == {200}
            assert most == 4

    run(test)
