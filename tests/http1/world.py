"""A server with a recording application, and raw bytes to and from it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import uvloop

from penstock.config import Limits
from penstock.http1 import Exchange, Server

JSON = b"content-type: application/json\r\n"
SHORT = Limits(request_line_bytes=256, header_line_bytes=512, headers_bytes=1_024, headers=16, body_bytes=4_096)
CLOSE = b"connection: close\r\n"


class Seen(list[tuple[str, str, str, bytes]]):
    """What reached the application: method, path, query, body; the exchanges beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.exchanges: list[Exchange] = []

    def __call__(self, exchange: Exchange) -> None:
        self.note(exchange)
        exchange.respond(200, JSON, b'{"bytes":%d}' % len(exchange.body))

    def note(self, exchange: Exchange) -> None:
        self.append((exchange.method, exchange.path, exchange.query, exchange.body))
        self.exchanges.append(exchange)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test()

    uvloop.run(bounded())


def serving(
    test: Callable[[int, Server], Awaitable[None]], app: Callable[[Exchange], None], limits: Limits = SHORT, **options: Any
) -> None:
    """Run the test against a listening server, and cut what is left of it afterwards."""

    async def body() -> None:
        server = Server(app, limits, **options)
        port = await server.listen("127.0.0.1", 0)
        try:
            await test(port, server)
        finally:
            await server.drain(0.0)

    run(body)


async def talk(port: int, *pieces: bytes) -> bytes:
    """Send the pieces on one connection and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
    try:
        return await reader.read()
    finally:
        writer.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait until it holds; the test's own time limit is what ends a vain wait."""
    while not condition():
        await asyncio.sleep(0.002)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def answers(data: bytes) -> int:
    """How many status lines are in it."""
    return len(re.findall(rb"HTTP/1\.1 [0-9]{3} ", data))


def body(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def is_error(answer: bytes) -> bool:
    """Whether the body is an error in OpenAI's shape and the head announces the close."""
    error = msgspec.json.decode(body(answer))["error"]
    return set(error) == {"message", "type", "param", "code"} and b"\r\nconnection: close\r\n" in answer


class Tape(asyncio.Transport):
    """A transport that keeps what is written, so that a test decides where reads begin and end."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.ended = self.closed = self.paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def writelines(self, list_of_data: Any) -> None:
        self.written += b"".join(list_of_data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True
