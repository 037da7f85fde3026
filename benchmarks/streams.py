"""An engine that streams at a steady pace: every call gets the same events, one every interval, all streams in step.

Run as a script: streams.py PORT[,PORT...] EVENTS INTERVAL_S. Its cost a chunk is one write, so that a proxy's cost shows.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import httptools
import uvloop

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"demo",'
    b'"choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}\n\n'
)
MODELS = b'{"object":"list","data":[{"id":"demo","object":"model","created":1,"owned_by":"bench"}],"model_path":"demo"}'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Stream(asyncio.Protocol):
    """One connection, one answer at a time."""

    def __init__(self, open_streams: set[Stream]) -> None:
        self._open = open_streams
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self.left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._open.discard(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._target = b""

    def on_url(self, target: bytes) -> None:
        self._target += target

    def on_message_complete(self) -> None:
        if b"completions" not in self._target:
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(MODELS) + MODELS)
            return
        self.transport.write(HEAD)
        self.left = EVENTS
        self._open.add(self)


EVENTS = 50


async def serve(ports: list[int], interval_s: float) -> None:
    loop = asyncio.get_running_loop()
    streams: set[Stream] = set()
    for port in ports:
        await loop.create_server(lambda: Stream(streams), "127.0.0.1", port, backlog=4_096)
    event, last = chunk(EVENT), chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    due = loop.time()
    while True:
        due += interval_s
        await asyncio.sleep(max(0.0, due - loop.time()))
        for stream in list(streams):
            if stream.left:
                stream.left -= 1
                stream.transport.write(event)
            else:
                streams.discard(stream)
                stream.transport.write(last)


if __name__ == "__main__":
    EVENTS = int(sys.argv[2])
    uvloop.run(serve([int(port) for port in sys.argv[1].split(",")], float(sys.argv[3])))
