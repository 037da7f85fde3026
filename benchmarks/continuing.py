"""What it costs that a stream may have to go on elsewhere: CPU a chunk with and without that, of its rest, and memory.

In one process without sockets: the real relay, call and exchange, with a transport that throws away.
"""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc

import uvloop

from benchmarks.inprocess import Wire
from benchmarks.row import Row, main
from benchmarks.streams import EVENT
from penstock.config import Limits
from penstock.gateway.emitted import Emitted, Room
from penstock.http1 import Exchange, Server
from penstock.http1.connection import Connection
from penstock.http1.outbox import Outbox
from penstock.wire import sse
from penstock.wire.graft import Graft
from penstock.wire.written import Written

ROUNDS, CHUNKS, STREAMS = 9, 20_000, 100
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"


def exchange() -> Exchange:
    got: list[Exchange] = []
    server = Server(got.append, Limits())
    server.outbox = Outbox(asyncio.get_running_loop())
    connection = Connection(server)
    connection.connection_made(Wire())
    connection.data_received(HEAD)
    got[0].start(200, b"content-type: text/event-stream\r\n")
    return got[0]


async def chunk_us(kept: bool, grafted: bool = False) -> float:
    """The best of some rounds."""
    events = [EVENT.replace(b" token", b" word%d" % (index % 97)) for index in range(997)]
    best = float("inf")
    for _ in range(ROUNDS):
        one, relay = exchange(), sse.Relay(False)
        send = Emitted(one.send, Room(), 0).send if kept else one.send
        graft = Graft({}, "", -1, 0, 0, said=True, ended=False)
        before = time.process_time()
        for at in range(CHUNKS):
            data = events[at % 997]
            send(relay.feed(graft.feed(data) if grafted else data))
            if not at % 200:
                await asyncio.sleep(0)
        best = min(best, (time.process_time() - before) / CHUNKS * 1e6)
    return best


def kept_bytes() -> float:
    """Of a stream of 2,000 tokens, the mean of many."""
    gc.collect()
    tracemalloc.start()
    room, kept = Room(), []
    for _ in range(STREAMS):
        one = Emitted(lambda data: None, room, 0)
        for at in range(2_000):
            one.send(EVENT.replace(b" token", b" word%d" % (at % 97)))
        kept.append(one)
    size = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    return size


def fold_us() -> float:
    data, best = b"".join(EVENT.replace(b" token", b" word%d" % at) for at in range(40)), float("inf")
    for _ in range(ROUNDS):
        written = Written()
        before = time.process_time()
        for _ in range(500):
            written.add(data)
        best = min(best, (time.process_time() - before) / 20_000 * 1e6)
    return best


def measure() -> list[Row]:
    return [
        Row("chunk of a stream that may not go on elsewhere", uvloop.run(chunk_us(False)), "us CPU"),
        Row("chunk of a stream that may", uvloop.run(chunk_us(True)), "us CPU"),
        Row("of that, its text taken out", fold_us(), "us CPU"),
        Row("chunk of a stream that went on elsewhere", uvloop.run(chunk_us(True, True)), "us CPU"),
        Row("kept of a stream of 2,000 tokens", kept_bytes() / 1e3, "KB"),
    ]


if __name__ == "__main__":
    main(measure)
