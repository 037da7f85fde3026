"""A gateway in front of scripted engines, all on real sockets, and callers that see every byte."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from penstock.config import Config, Listen, Node
from penstock.gateway.service import Gateway

MODEL = "deepseek-v3"
BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
STREAM = BODY | {"stream": True}
WORDS = ("One", " two", " three")
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
FINISH = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
JSON_HEAD = b"HTTP/1.1 %d Status\r\ncontent-type: application/json\r\nset-cookie: a=b\r\nserver: engine\r\ncontent-length: %d\r\n\r\n"
SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Asked(msgspec.Struct):
    """A request as an engine got it."""

    line: str
    headers: dict[str, str]
    body: bytes
    writer: asyncio.StreamWriter

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = msgspec.json.decode(self.body)
        return value


Behave = Callable[[Asked], Awaitable[None]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(content: str | None = None, **more: Any) -> bytes:
    delta = {"role": "assistant", "content": ""} if content is None else {"content": content}
    choices = [] if "usage" in more else [{"index": 0, "delta": delta, "finish_reason": None}]
    body = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices} | more
    return chunk(b"data: %b\n\n" % msgspec.json.encode(body))


def put_json(asked: Asked, body: object, status: int = 200) -> None:
    data = msgspec.json.encode(body)
    asked.writer.write(JSON_HEAD % (status, len(data)) + data)


async def answer(asked: Asked) -> None:
    """What a healthy engine does at once."""
    if asked.json.get("stream"):
        asked.writer.write(SSE_HEAD + event() + b"".join(map(event, WORDS)) + event(choices=FINISH))
        if (asked.json.get("stream_options") or {}).get("include_usage"):
            asked.writer.write(event(usage=USAGE))
        asked.writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    else:
        message = {"role": "assistant", "content": "".join(WORDS)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        put_json(asked, {"id": "c-1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice], "usage": USAGE})


async def never(asked: Asked) -> None:
    """Takes the request and says nothing."""
    await asyncio.Event().wait()


async def die(asked: Asked) -> None:
    asked.writer.transport.abort()


def refuse(status: int, body: object | None = None) -> Behave:
    async def behave(asked: Asked) -> None:
        put_json(asked, body or {"error": {"message": "no"}}, status)

    return behave


def stream_then(*pieces: bytes, then: Behave = die) -> Behave:
    """Streams the pieces, each seen by the caller's side before the end comes."""

    async def behave(asked: Asked) -> None:
        asked.writer.write(SSE_HEAD)
        for piece in pieces:
            asked.writer.write(piece)
            await asyncio.sleep(0.01)
        await then(asked)

    return behave


class Engine:
    """Listens; answers /health, /v1/models and /metrics, and calls as `behave` does."""

    def __init__(self, name: str, behave: Behave, tls: ssl.SSLContext | None = None) -> None:
        self.name, self.behave, self.tls = name, behave, tls
        self.asked: list[Asked] = []
        """Calls, probes left out."""
        self.open = 0
        """Calls under way whose connection is there."""
        self.probes = 0
        self.healthy = True
        self.models: list[str] = [MODEL]
        self.metrics: bytes | None = None
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        sock = socket.create_server(("127.0.0.1", self.port))
        self.port = sock.getsockname()[1]
        self._server = await asyncio.start_server(self._connected, sock=sock, ssl=self.tls)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:
            # Accepted while the listener was closing.
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task that is cancelled before its first step runs no `finally` of its own.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                asked = await _read(reader, writer)
                if asked.line.startswith("GET"):
                    self._probe(asked)
                else:
                    await self._call(asked, reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass

    async def _call(self, asked: Asked, reader: asyncio.StreamReader) -> None:
        self.asked.append(asked)
        self.open += 1
        behaving = asyncio.ensure_future(self.behave(asked))
        # Nobody pipelines to an engine: what comes while it works is the end of the connection.
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((behaving, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not behaving.done():
                raise ConnectionResetError
            behaving.result()
        finally:
            self.open -= 1
            behaving.cancel()
            leaving.cancel()
            await asyncio.gather(behaving, leaving, return_exceptions=True)

    def _probe(self, asked: Asked) -> None:
        self.probes += 1
        path = asked.line.split()[1]
        if path == "/v1/models":
            put_json(asked, {"object": "list", "data": [{"id": name} for name in self.models]})
        elif path == "/metrics" and self.metrics is not None:
            put_text(asked, self.metrics)
        else:
            put_json(asked, {}, 404 if path == "/metrics" else 200 if self.healthy else 500)


def put_text(asked: Asked, data: bytes) -> None:
    asked.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b" % (len(data), data))


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    line, *lines = head[:-4].split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(line, headers, body, writer)


class Answer(msgspec.Struct):
    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool
    """The body ended as its framing says, not by a cut."""

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = msgspec.json.decode(self.body)
        return value

    @property
    def error(self) -> dict[str, Any]:
        value: dict[str, Any] = self.json["error"]
        return value

    @property
    def events(self) -> list[bytes]:
        """A stream's data, comments left out."""
        return [part.removeprefix(b"data: ") for part in self.body.split(b"\n\n") if part.startswith(b"data: ")]

    @property
    def text(self) -> str:
        parts = [msgspec.json.decode(data) for data in self.events if data != b"[DONE]"]
        return "".join(choice["delta"].get("content") or "" for part in parts for choice in part.get("choices", ()))


class Caller:
    """One connection to the gateway."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.port, self.tls = port, tls

    async def __aenter__(self) -> Caller:
        name = "localhost" if self.tls else None
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls, server_hostname=name)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        self.writer.transport.abort()

    def send(
        self,
        body: object = None,
        path: str = "/v1/chat/completions",
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
    ) -> None:
        data = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        given = {"host": "gateway", "content-type": "application/json", "content-length": str(len(data))} | dict(headers or {})
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        self.writer.write(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + data)

    async def head(self) -> tuple[int, dict[str, str]]:
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        line, *lines = text[:-4].split("\r\n")
        return int(line.split()[1]), {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}

    async def piece(self) -> bytes:
        """The next chunk of a chunked body; empty at its end. Raises IncompleteReadError when it was cut."""
        size = int((await self.reader.readuntil(b"\r\n")).strip(), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def answer(self) -> Answer:
        status, headers = await self.head()
        body = b""
        try:
            if "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            elif status != 204:
                while piece := await self.piece():
                    body += piece
        except asyncio.IncompleteReadError:
            return Answer(status, headers, body, False)
        return Answer(status, headers, body, True)


async def ask(port: int, body: object = None, path: str = "/v1/chat/completions", **more: Any) -> Answer:
    async with Caller(port) as caller:
        caller.send(body, path, **more)
        return await caller.answer()


async def get(port: int, path: str, method: str = "GET", **headers: str) -> Answer:
    async with Caller(port) as caller:
        caller.send(None, path, {name.replace("_", "-"): value for name, value in headers.items()}, method)
        return await caller.answer()


async def until(condition: Callable[[], object]) -> None:
    """Wait until it holds; the test's own time limit ends a vain wait."""
    while not condition():
        await asyncio.sleep(0.002)


class World:
    """A gateway and its engines."""

    def __init__(self, gateway: Gateway, engines: list[Engine]) -> None:
        self.gateway, self.engines = gateway, engines

    @property
    def port(self) -> int:
        return self.gateway.port

    @property
    def asked(self) -> list[Asked]:
        return [asked for engine in self.engines for asked in engine.asked]


@asynccontextmanager
async def world(
    *behaviours: Behave,
    config: Config | None = None,
    journal: Path | None = None,
    tls: ssl.SSLContext | None = None,
    each: Sequence[dict[str, Any]] = (),
    make: Callable[..., Engine] = Engine,
    path: str = "",
    **node: Any,
) -> AsyncIterator[World]:
    engines = [make(f"n{index}", behave, tls) for index, behave in enumerate(behaviours or (answer,))]
    for engine in engines:
        await engine.start()
    scheme = "https" if tls else "http"
    own = each or ({},) * len(engines)
    nodes = tuple(
        Node(name=engine.name, url=f"{scheme}://127.0.0.1:{engine.port}{path}", **({"models": (MODEL,)} | node | more))
        for engine, more in zip(engines, own, strict=True)
    )
    given = config or Config()
    listen = msgspec.structs.replace(given.listen, port=0)
    gateway = Gateway(msgspec.structs.replace(given, nodes=nodes, listen=listen, admin=Listen(port=0)), journal, seed=1)
    await gateway.start()
    try:
        yield World(gateway, engines)
    finally:
        await gateway.stop(0.0)
        for engine in engines:
            await engine.stop()


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test on a fresh event loop, for at most 30 s."""

    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test()

    uvloop.run(bounded())
