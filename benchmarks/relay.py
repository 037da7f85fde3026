"""A relay that does nothing but relay: what http1 alone costs. usage: relay.py PORT ENGINE_URL..."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import Mapping

import uvloop

from penstock.config import Limits
from penstock.facts import Failure
from penstock.http1 import Exchange, Server, Upstream

_JSON = b"content-type: application/json\r\n"


class Relay:
    """One call on its way: the answer's head decides between one write and a stream."""

    __slots__ = ("call", "exchange", "parts", "status", "streams")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.parts = b""

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.streams = "content-length" not in headers
        if self.streams:
            self.exchange.start(status, b"content-type: %b\r\n" % headers.get("content-type", "text/plain").encode())

    def on_body(self, data: bytes) -> None:
        if self.streams:
            self.exchange.send(data)
        else:
            self.parts = self.parts + data if self.parts else data

    def on_end(self) -> None:
        if self.streams:
            self.exchange.end()
        else:
            self.exchange.respond(self.status, _JSON, self.parts)

    def on_failure(self, failure: Failure, detail: str) -> None:
        if self.exchange.started:
            self.exchange.abort()
        else:
            self.exchange.respond(502, _JSON, b'{"error":{"message":"the engine failed"}}')


async def main() -> None:
    limits = Limits()
    nodes = itertools.cycle([Upstream(url, limits) for url in sys.argv[2:]])
    head = b"POST %b HTTP/1.1\r\nhost: engine\r\ncontent-type: application/json\r\n"

    def app(exchange: Exchange) -> None:
        relay = Relay(exchange)
        call = next(nodes).request(head % exchange.path.encode(), exchange.body, relay)
        exchange.on_cancel = call.cancel
        exchange.on_pause = call.pause
        exchange.on_resume = call.resume

    server = Server(app, limits)
    port = await server.listen("127.0.0.1", int(sys.argv[1]))
    print(f"relay on 127.0.0.1:{port}, pid {os.getpid()}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
