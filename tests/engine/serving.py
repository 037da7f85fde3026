"""Embedded engines on free ports, and plain HTTP to talk to them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvloop
from openai import AsyncOpenAI

from penstock.engine.server import Engines, Options


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Engines]:
    engines = Engines(Options(**{"port": 0, "nodes": 1, "speed": 20.0, "models": ("deepseek-v3", "DeepSeek-R1"), **options}))
    await engines.open()
    try:
        yield engines
    finally:
        await engines.close(0.1)


@asynccontextmanager
async def client(engines: Engines) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"http://127.0.0.1:{engines.ports[0]}/v1", api_key="none", max_retries=0) as openai:
        yield openai


def on_engine(test: Callable[[Engines], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        async with serving(**options) as engines:
            await test(engines)

    uvloop.run(run())


def request(method: str, path: str, body: object = None, headers: str = "") -> bytes:
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: engine\r\nconnection: close\r\ncontent-length: {len(raw)}\r\n{headers}\r\n"
    return head.encode() + raw


async def call(engines: Engines, method: str, path: str, body: object = None, headers: str = "") -> tuple[int, bytes]:
    """Status and body (still chunked if it was streamed) of one call."""
    reader, writer = await asyncio.open_connection("127.0.0.1", engines.ports[0])
    writer.write(request(method, path, body, headers))
    answer = await reader.read()
    writer.close()
    head, _, rest = answer.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), rest


async def metrics(engines: Engines) -> dict[str, float]:
    """Samples by name; those with labels of their own by name and labels."""
    _, text = await call(engines, "GET", "/metrics")
    found = {}
    for line in text.decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name.replace('model_name="deepseek-v3"', "").replace("{}", "")] = float(value)
    return found


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.001)


def chat(content: str = "hello", **more: Any) -> dict[str, Any]:
    return {"model": "deepseek-v3", "messages": [{"role": "user", "content": content}], **more}
