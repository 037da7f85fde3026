"""A scripted engine on a real socket: every chat call gets the next behaviour, with known delays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
MODELS = b'{"object":"list","data":[{"id":"tiny","object":"model"}]}'

Part = bytes | float | None
"""Bytes to write, seconds to wait, or None to close the connection."""


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(value: object) -> bytes:
    return chunk(b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n")


def piece(text: str = " word") -> bytes:
    return event({"choices": [{"delta": {"content": text}}]})


ROLE = event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
DONE = chunk(b"data: [DONE]\n\n")
END = b"0\r\n\r\n"


def answer(tokens: int, ttft_s: float, gap_s: float) -> list[Part]:
    """A whole stream: head and role at once, then the tokens at their times."""
    parts: list[Part] = [HEAD + ROLE, ttft_s, piece()]
    for _ in range(tokens - 1):
        parts += [gap_s, piece()]
    usage = event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": tokens}})
    return [*parts, usage + DONE + END]


def plain(status: int, body: bytes, headers: bytes = b"") -> list[Part]:
    return [b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%s\r\n" % (status, len(body), headers) + body]


def error(status: int, message: str, headers: bytes = b"") -> list[Part]:
    return plain(status, json.dumps({"error": {"message": message}}).encode(), headers)


class Engine:
    """Serves on a free port of 127.0.0.1 inside an `async with` block."""

    def __init__(self, behave: Callable[[int, dict[str, Any]], list[Part]], key: str | None = None) -> None:
        self._behave, self._key = behave, key
        self.bodies: list[dict[str, Any]] = []
        self.arrived: list[float] = []
        self.running = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Engine:
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1_024)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        self._writers.append(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0]) if "content-length" in head else 0
        body = await reader.readexactly(length)
        if self._key is not None and f"authorization: bearer {self._key}\r\n" not in head:
            return await self._play(writer, error(401, "wrong key"))
        if head.startswith("get "):
            return await self._play(writer, plain(200, MODELS))
        self.arrived.append(asyncio.get_running_loop().time())
        self.bodies.append(json.loads(body))
        self.running += 1
        try:
            return await self._play(writer, self._behave(len(self.bodies) - 1, self.bodies[-1]))
        finally:
            self.running -= 1

    async def _play(self, writer: asyncio.StreamWriter, parts: list[Part]) -> bool:
        for part in parts:
            if part is None:
                return False
            if isinstance(part, bytes):
                writer.write(part)
                await writer.drain()
            else:
                await asyncio.sleep(part)
        return True
