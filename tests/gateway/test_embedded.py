"""The gateway in front of the embedded engine, as `penstock up` runs them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from tests.gateway.world import Caller, ask, run, until

from penstock.config import Class, Config, Listen
from penstock.config import Node as NodeConfig
from penstock.engine.server import Engines, Options
from penstock.gateway.replay import replay
from penstock.gateway.service import Gateway

MODELS = ("deepseek-v3", "deepseek-r1")


@asynccontextmanager
async def _serving(speed: float, config: Config | None = None, journal: Path | None = None) -> AsyncIterator[tuple[Gateway, Engines]]:
    engines = Engines(Options(nodes=2, port=0, models=MODELS, speed=speed))
    await engines.open()
    nodes = tuple(NodeConfig(name=f"n{port}", url=f"http://127.0.0.1:{port}") for port in engines.ports)
    given = msgspec.structs.replace(config or Config(probe_s=0.05), nodes=nodes, listen=Listen(port=0), admin=Listen(port=0))
    gateway = Gateway(given, journal, seed=1)
    await gateway.start()
    try:
        await until(lambda: gateway.core.models() == list(MODELS))
        yield gateway, engines
    finally:
        await gateway.stop(0.0)
        await engines.close(0.0)


def _running(engines: Engines) -> int:
    return sum(node.engine.running + node.engine.waiting for node in engines.nodes)


def _call(model: str = "deepseek-v3", tokens: int = 8, **more: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "Tell me of penstocks."}], "max_tokens": tokens} | more


def test_answers_streams_and_embeddings() -> None:
    async def test() -> None:
        async with _serving(50.0) as (gateway, _):
            plain = await ask(gateway.port, _call())
            assert plain.json["usage"]["completion_tokens"] == 8
            stream = await ask(gateway.port, _call(stream=True))
            assert stream.text == plain.json["choices"][0]["message"]["content"]
            assert stream.events[-1] == b"[DONE]"
            thinking = await ask(gateway.port, _call("deepseek-r1", 40, stream=True))
            assert b"reasoning_content" in thinking.body
            embedded = await ask(gateway.port, {"model": "deepseek-v3", "input": "penstock"}, "/v1/embeddings")
            assert embedded.json["data"][0]["embedding"]

    run(test)


def test_a_caller_who_leaves_frees_the_engines_slot_within_100_ms() -> None:
    async def test() -> None:
        async with _serving(1.0) as (gateway, engines):
            for stream in (True, False):
                async with Caller(gateway.port) as caller:
                    caller.send(_call(tokens=4_000, stream=stream))
                    await until(lambda: _running(engines) == 1)
                    caller.leave()
                    left = time.monotonic()
                    await until(lambda: not _running(engines))
                    assert time.monotonic() - left < 0.1

    run(test)


def test_overload_is_refused_with_times_to_come_back_and_replays(tmp_path: Path) -> None:
    async def test() -> None:
        config = Config(probe_s=0.05, classes=(Class(name="brief", ttft_ms=1500.0),))
        async with _serving(1.0, config, tmp_path) as (gateway, _):
            # No two prompts share a beginning, so each has to be read whole: a third of a second.
            prompts = [[{"role": "user", "content": f"{index} word " * 3_000}] for index in range(60)]
            got = await asyncio.gather(*(ask(gateway.port, _call(tokens=2, stream=True, messages=prompt)) for prompt in prompts))
            statuses = {answer.status for answer in got}
            assert statuses == {200, 503}
            assert all(int(answer.headers["retry-after-ms"]) > 0 for answer in got if answer.status == 503)
            assert all(answer.events[-1] == b"[DONE]" for answer in got if answer.status == 200)

    run(test)
    result = replay(tmp_path)
    assert result.difference is None
    assert result.events > 60
