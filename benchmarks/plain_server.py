"""Plain OpenAI servers in real time: `python plain_server.py PORTS KINDS [CHANGES]`, one server on each port, in one process.

No metrics, no hint of what they can take. PORTS and KINDS are separated by commas (`fifo`, or `busy@0.33` for one at a third of the
speed); CHANGES are `SECONDS:PORTS:FACTOR` separated by commas: each changes the capacity of some (`PORT+PORT`) that long after SIGUSR1.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from itertools import count
from pathlib import Path
from typing import cast

import httptools
import msgspec
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.plain import KINDS, Kind, Plain

TOKENS = 8
"""Of a streamed answer; they come evenly over its service, the first after a tenth of it."""
MODELS = b'{"object":"list","data":[{"id":"plain","object":"model","created":1,"owned_by":"bench"}]}'
WHOLE = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"plain","choices":[{"index":0,"message":{"role":'
    b'"assistant","content":"eight tokens"},"finish_reason":"stop"}],"usage":{"prompt_tokens":20,"completion_tokens":8,"total_tokens":28}}'
)
BUSY = b'{"error":{"message":"too many requests","type":"rate_limit_error","code":"busy"}}'
CHUNK = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"plain","choices":[{"index":0,"delta":'
    b'{"content":" token"},"finish_reason":null}]}\n\n'
)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def respond(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (status.encode(), len(body), body)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Server:
    """One server: its model of capacity, and the calls on it."""

    def __init__(self, kind: Kind, seed: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.plain = Plain(kind, random.Random(seed))
        self.calls: dict[int, Call] = {}
        self.ids = count(1)
        self.timer: asyncio.TimerHandle | None = None

    def submit(self, call: Call) -> None:
        """Gives the call its number; 0 when the server is busy."""
        id = next(self.ids)
        if not self.plain.submit(id, self.loop.time()):
            call.id = 0
            return
        self.calls[id] = call
        call.id = id
        self._go_on()

    def cancel(self, id: int) -> None:
        if self.calls.pop(id, None) is not None:
            self.plain.cancel(id, self.loop.time())
            self._go_on()

    def set_factor(self, factor: float) -> None:
        self.plain.set_factor(factor, self.loop.time())
        self._go_on()

    def _go_on(self) -> None:
        begun, self.plain.begun = self.plain.begun, []
        for id in begun:
            if id in self.calls:
                self.calls[id].begin()
        if self.timer is not None:
            self.timer.cancel()
        at = self.plain.next_at()
        self.timer = self.loop.call_at(at, self._end) if at < float("inf") else None

    def _end(self) -> None:
        for id in self.plain.advance(self.loop.time()):
            call = self.calls.pop(id, None)
            if call is not None:
                call.end()
        self._go_on()


class Call(asyncio.Protocol):
    """A connection, with one answer at a time."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.parser = httptools.HttpRequestParser(self)
        self.target, self.body = b"", b""
        self.id = 0
        self.stream = False
        self.left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self.id:
            self.server.cancel(self.id)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.target, self.body = b"", b""

    def on_url(self, target: bytes) -> None:
        self.target += target

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if b"completions" in self.target:
            self.stream = bool(json.loads(self.body).get("stream"))
            self.left = TOKENS
            self.server.submit(self)
            if not self.id:
                self.transport.write(respond("429 Too Many Requests", BUSY))
        elif b"models" in self.target:
            self.transport.write(respond("200 OK", MODELS))
        else:
            self.transport.write(respond("404 Not Found", b"{}"))

    def begin(self) -> None:
        """Its service has begun."""
        if self.stream:
            self.transport.write(HEAD)
            self.gap_s = (
                0.1 * self.server.plain.kind.seconds / self.server.plain.kind.speed(self.server.plain.running, self.server.plain.factor)
            )
            self.server.loop.call_later(self.gap_s, self.token, self.id)

    def token(self, id: int) -> None:
        if self.left > 1 and self.id == id:
            self.left -= 1
            self.transport.write(chunk(CHUNK))
            self.server.loop.call_later(self.gap_s, self.token, id)

    def end(self) -> None:
        self.id = 0
        if self.stream:
            self.transport.write(chunk(CHUNK * self.left) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        else:
            self.transport.write(respond("200 OK", WHOLE))


def kind_of(name: str) -> Kind:
    kind, at, pace = name.partition("@")
    return msgspec.structs.replace(KINDS[kind], pace=float(pace)) if at else KINDS[kind]


async def serve(ports: list[int], kinds: list[str], changes: list[tuple[float, list[int], float]]) -> None:
    loop = asyncio.get_running_loop()
    servers = {port: Server(kind_of(kind), port) for port, kind in zip(ports, kinds, strict=True)}
    for port, server in servers.items():
        await loop.create_server(lambda server=server: Call(server), "127.0.0.1", port, backlog=4_096)  # type: ignore[misc]

    def begin() -> None:
        for after_s, changed, factor in changes:
            for port in changed:
                loop.call_later(after_s, servers[port].set_factor, factor)

    loop.add_signal_handler(signal.SIGUSR1, begin)
    await asyncio.Event().wait()


def change_of(text: str) -> tuple[float, list[int], float]:
    after_s, ports, factor = text.split(":")
    return float(after_s), [int(port) for port in ports.split("+")], float(factor)


if __name__ == "__main__":
    later = [change_of(text) for text in sys.argv[3].split(",")] if len(sys.argv) > 3 else []
    uvloop.run(serve([int(port) for port in sys.argv[1].split(",")], sys.argv[2].split(","), later))
