"""A node that answers each request with the bytes a test gives it, and a receiver that keeps what comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tests.http1.world import SHORT, run, until

from penstock.config import Limits
from penstock.facts import Failure
from penstock.http1 import Upstream


class Got:
    """What a receiver was told; it complains when it is told after the end."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.pieces: list[bytes] = []
        self.ends = 0
        self.failure: Failure | None = None
        self.detail = ""

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def over(self) -> bool:
        return self.ends > 0

    async def begin(self) -> None:
        await until(lambda: self.status)

    async def wait(self) -> None:
        await until(lambda: self.over)

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        assert not self.over
        assert not self.status
        self.status, self.headers = status, headers

    def on_body(self, data: bytes) -> None:
        assert not self.over
        assert self.status
        assert data
        self.pieces.append(data)

    def on_end(self) -> None:
        assert not self.over
        self.ends += 1

    def on_failure(self, failure: Failure, detail: str) -> None:
        assert not self.over
        assert detail
        self.ends += 1
        self.failure, self.detail = failure, detail


class Node:
    def __init__(self, answer: bytes, closes: bool, single: bool) -> None:
        self.answer, self.closes, self.single = answer, closes, single
        self.early = False
        """Answer before the body was read."""
        self.accepted = 0
        self.requests: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                body = b"" if self.early else await reader.readexactly(length)
                self.requests.append(head + body)
                await self.send(writer)
                if self.closes:
                    return
                if self.early:
                    await asyncio.Event().wait()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def send(self, writer: asyncio.StreamWriter) -> None:
        for n in range(len(self.answer)) if self.single else ():
            writer.write(self.answer[n : n + 1])
            await asyncio.sleep(0)
        if not self.single:
            writer.write(self.answer)


def asking(
    test: Callable[[Upstream, Node], Awaitable[None]],
    answer: bytes,
    limits: Limits = SHORT,
    *,
    closes: bool = False,
    single: bool = False,
    **options: Any,
) -> None:
    """Run the test with an upstream to a node that answers so."""

    async def body() -> None:
        node = Node(answer, closes, single)
        listener = await asyncio.start_server(node.serve, "127.0.0.1", 0, ssl=options.pop("ssl", None))
        port = listener.sockets[0].getsockname()[1]
        scheme = options.pop("scheme", "http")
        upstream = Upstream(f"{scheme}://{options.pop('host', '127.0.0.1')}:{port}", limits, **options)
        try:
            await test(upstream, node)
        finally:
            upstream.close()
            listener.close()
            for writer in node.writers:
                writer.transport.abort()
            await asyncio.sleep(0)

    run(body)
