"""The listener before a model server: what it answers itself, what it passes on, and how it takes its leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.engine.llama import Llama, before, llama, run, said
from tests.gateway.world import JSON_HEAD, SSE_HEAD, Answer, Asked, Caller, Engine, chunk, die, never, refuse, until

from penstock.config import Limits
from penstock.engine.backends.front import Front
from penstock.http1 import Server

CHAT = "/v1/chat/completions"
CALL: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}


class Fronted:
    def __init__(self, front: Front, port: int, behind: Engine) -> None:
        self.front, self.port, self.behind = front, port, behind

    async def ask(self, path: str, body: object = None, method: str = "POST", key: str = "") -> Answer:
        async with Caller(self.port) as caller:
            caller.send(body, path, {"authorization": f"Bearer {key}"} if key else {}, method)
            return await caller.answer()


@asynccontextmanager
async def fronted(behave: Callable[[Asked], Awaitable[None]], key: str = "", ready: bool = True) -> AsyncIterator[Fronted]:
    behind = Engine("behind", behave)
    await behind.start()
    front = Front(key)
    server = Server(front.app, Limits())
    port = await server.listen()
    if ready:
        front.open(f"http://127.0.0.1:{behind.port}", "inner")
    try:
        yield Fronted(front, port, behind)
    finally:
        front.close()
        await server.drain(0.0)
        await behind.stop()


def streams(*events: object) -> Callable[[Asked], Awaitable[None]]:
    async def behave(asked: Asked) -> None:
        asked.writer.write(SSE_HEAD)
        for event in events:
            asked.writer.write(chunk(b"data: " + msgspec.json.encode(event) + b"\n\n"))
        asked.writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    return behave


def piece(index: int = 0, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {"choices": [choice], "id": "c", "created": 1, "model": "m", "object": "chat.completion.chunk"}


TWO = streams(
    piece(role="assistant", content=None),
    piece(reasoning_content="hm"),
    piece(content="Hel"),
    piece(content="lo"),
    piece(finish="stop"),
    {"choices": [], "id": "c", "object": "chat.completion.chunk", "usage": {"completion_tokens": 2}},
)


def test_while_the_model_loads_every_page_says_so() -> None:
    async def test() -> None:
        async with fronted(never, ready=False) as f:
            for path, method in (("/health", "GET"), ("/v1/models", "GET"), (CHAT, "POST")):
                got = await f.ask(path, CALL, method)
                assert (got.status, got.error["message"], got.error["type"]) == (503, "Loading model", "unavailable_error")

    run(test)


def test_a_gateway_takes_a_model_that_loads_for_not_ready_and_not_for_broken(gguf_file: Path) -> None:
    async def test(real: Llama) -> None:
        async with fronted(never, ready=False) as f, before(f"http://127.0.0.1:{f.port}") as (gateway, client):
            while (node := gateway.snapshot().nodes[0]).state == "up":
                await asyncio.sleep(0.01)
            assert (node.state, node.breaker) == ("lost", "closed")
            waiting = asyncio.ensure_future(said(client))
            await until(lambda: gateway.snapshot().lanes[0].waiting == 1)
            f.front.open(real.url, "inner")
            assert len(await waiting) == 40

    with llama(gguf_file) as real:
        run(lambda: test(real))


def test_a_stream_is_passed_on_as_it_comes() -> None:
    async def test() -> None:
        async with fronted(TWO) as f:
            got = await f.ask(CHAT, CALL | {"stream": True})
            assert got.headers["content-type"].startswith("text/event-stream")
            assert len(got.events) == 7
            assert f.behind.asked[0].json == CALL | {"stream": True}

    run(test)


def test_a_whole_answer_is_put_together_from_a_stream() -> None:
    async def test() -> None:
        async with fronted(TWO) as f:
            got = await f.ask(CHAT, CALL | {"temperature": 0})
            message = {"role": "assistant", "content": "Hello", "reasoning_content": "hm"}
            assert got.json == {
                "choices": [{"message": message, "index": 0, "finish_reason": "stop"}],
                "id": "c",
                "created": 1,
                "model": "m",
                "object": "chat.completion",
                "usage": {"completion_tokens": 2},
            }
            assert f.behind.asked[0].json["stream"] is True
            assert f.behind.asked[0].headers["authorization"] == "Bearer inner"

    run(test)


@pytest.mark.parametrize("stream", [True, False])
def test_a_caller_who_leaves_is_noticed_behind(stream: bool) -> None:
    async def test() -> None:
        async with fronted(never) as f:
            async with Caller(f.port) as caller:
                caller.send(CALL | {"stream": stream}, CHAT)
                await until(lambda: f.behind.open == 1)
                assert f.front.running == 1
            await until(lambda: f.behind.open == 0)
            assert f.front.running == 0

    run(test)


def test_an_error_comes_through() -> None:
    async def test() -> None:
        async with fronted(refuse(400, {"error": {"code": 400, "message": "too long"}})) as f:
            got = await f.ask(CHAT, CALL)
            assert (got.status, got.error["message"]) == (400, "too long")
        async with fronted(streams(piece(content="a"), {"error": {"code": 500, "message": "it broke"}})) as f:
            got = await f.ask(CHAT, CALL)
            assert (got.status, got.error["message"]) == (500, "it broke")

    run(test)


def test_a_server_that_dies_is_said_to_have_died() -> None:
    async def test() -> None:
        async with fronted(die) as f:
            assert (await f.ask(CHAT, CALL)).status == 502
            assert f.front.running == 0

        async def half(asked: Asked) -> None:
            asked.writer.write(SSE_HEAD + chunk(b"data: {}\n\n"))
            await asyncio.sleep(0.05)
            asked.writer.transport.abort()

        async with fronted(half) as f:
            assert not (await f.ask(CHAT, CALL | {"stream": True})).whole
            assert (await f.ask(CHAT, CALL)).status == 502

    run(test)


@pytest.mark.parametrize("path", ["/slots/0", "/lora-adapters", "/props", "/v1/responses", "/", "/completion"])
def test_what_could_change_the_server_is_not_passed_on(path: str) -> None:
    async def test() -> None:
        async with fronted(never) as f:
            assert (await f.ask(path, {})).status == 404
            assert not f.behind.asked

    run(test)


def test_a_key_is_checked_but_for_health() -> None:
    async def healthy(asked: Asked) -> None:
        asked.writer.write(JSON_HEAD % (200, 2) + b"{}")

    async def test() -> None:
        async with fronted(healthy, key="sk-outer") as f:
            assert (await f.ask("/tokenize", {})).status == 401
            assert (await f.ask("/tokenize", {}, key="sk-wrong")).status == 401
            assert (await f.ask("/tokenize", {}, key="sk-outer")).status == 200
            assert (await f.ask("/health", method="GET")).status == 200

    run(test)
