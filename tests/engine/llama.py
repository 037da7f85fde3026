"""Real llama.cpp servers as processes, and a gateway before them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from openai import AsyncOpenAI
from tests.supervisor.stage import Stage, running

from penstock.config import Config, Engine, Listen, Node
from penstock.gateway.service import Gateway

NAME = "tiny-deepseek"
PATIENCE_S = 300.0
"""A server may serve a whole module of tests."""
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]


class Llama:
    """A server's process and where it listens."""

    def __init__(self, stage: Stage, url: str) -> None:
        self.stage, self.url = stage, url


@contextmanager
def llama(file: Path, *options: str) -> Iterator[Llama]:
    """`penstock engine --backend llama.cpp` over the file, on a free port."""
    words = ("-m", "penstock", "engine", "--backend", "llama.cpp", "--model", str(file), "--port", "0", *options)
    with running(*words, patience_s=PATIENCE_S) as stage:
        yield Llama(stage, stage.wait_for(r"serves \S+ on (http\S+)")[1])


@asynccontextmanager
async def before(*urls: str, config: Config | None = None, **node: Any) -> AsyncIterator[tuple[Gateway, AsyncOpenAI]]:
    """A gateway before the servers at these URLs, and a client of it."""
    given = config or Config(probe_s=0.05)
    own: dict[str, Any] = {"models": (NAME,), "engine": Engine.LLAMA_CPP, "max_running": 4} | node
    nodes = tuple(Node(name=f"llama-{index}", url=url, **own) for index, url in enumerate(urls))
    gateway = Gateway(msgspec.structs.replace(given, nodes=nodes, listen=Listen(port=0), admin=Listen(port=0)), seed=1)
    await gateway.start()
    try:
        async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
            yield gateway, client
    finally:
        await gateway.stop(0.0)


async def said(client: AsyncOpenAI, content: str = "Hello", tokens: int = 40, **more: Any) -> str:
    """What the model answers, whole; the likeliest token each time."""
    messages: list[Any] = [{"role": "user", "content": content}]
    answer = await client.chat.completions.create(model=NAME, messages=messages, max_tokens=tokens, **({"temperature": 0} | more))
    return answer.choices[0].message.content or ""


async def streamed(client: AsyncOpenAI, messages: list[Any], tokens: int = 40, **more: Any) -> str:
    """The same as a stream's pieces tell it."""
    answer = await client.chat.completions.create(model=NAME, messages=messages, max_tokens=tokens, temperature=0, stream=True, **more)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in answer if chunk.choices])


async def gauge(url: str, name: str) -> float:
    """A number of the server's own metrics page."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(b"GET /metrics HTTP/1.1\r\nhost: llama\r\nconnection: close\r\n\r\n")
    page = (await reader.read()).decode()
    writer.close()
    found = re.search(rf"^llamacpp:{name} (\S+)", page, re.M)
    assert found, page
    return float(found[1])


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():
        await asyncio.sleep(0.01)


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test on a fresh event loop, for at most a minute."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    uvloop.run(bounded())
