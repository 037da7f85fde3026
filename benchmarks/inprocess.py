"""CPU of a request inside the gateway's process, without sockets: the real app, driver, core and ledger between a caller and engines
that are made up; and of a head that differs from the one before it, as official clients send them.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
import time
from collections import deque
from typing import ClassVar, cast

from benchmarks.cost import ANSWER, KEY, NODES
from benchmarks.row import Row, main
from penstock.config import Limits
from penstock.core import Core
from penstock.gateway import auth
from penstock.gateway.app import App
from penstock.gateway.driver import Driver
from penstock.gateway.node import Node
from penstock.gateway.settings import read
from penstock.http1 import Call, Exchange, Upstream
from penstock.http1 import head as heads
from penstock.http1.client import Receiver
from penstock.metrics.ledger import Ledger

ROUNDS, REQUESTS, RUNNING = 7, 5_000, 32
CONFIG = (
    f"keys:\n  - {{name: bench, sha256: {hashlib.sha256(KEY.encode()).hexdigest()}}}\n"
    "nodes:\n"
    + "".join(f"  - {{name: node{index}, url: 'http://127.0.0.1:{9_000 + index}', models: [demo]}}\n" for index in range(NODES))
    + "classes:\n"
    "  - {name: urgent, when: {tenant: trading}, priority: 5, ttft_ms: 500}\n"
    "  - {name: long, when: {prompt_tokens: {ge: 100000}}, priority: 2, ttft_ms: 30000}\n"
    "  - {name: usual, priority: 3, ttft_ms: 20000, ttft_ms_per_1k: 250}\n"
)
BODY = (
    '{"model":"demo","messages":[{"role":"system","content":"You are helpful."},{"role":"user","content":"%s"}],"max_tokens":64}'
    % ("lorem ipsum " * 25)
).encode()
OFFICIAL = (
    "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n"
    "Accept: application/json\r\nContent-Type: application/json\r\nUser-Agent: OpenAI/Python 1.109.1\r\nX-Stainless-Lang: python\r\n"
    "X-Stainless-Package-Version: 1.109.1\r\nX-Stainless-OS: Linux\r\nX-Stainless-Arch: x64\r\nX-Stainless-Runtime: CPython\r\n"
    "X-Stainless-Runtime-Version: 3.11.2\r\nAuthorization: Bearer sk-bench\r\nX-Stainless-Async: async:asyncio\r\n"
    "x-stainless-retry-count: 0\r\nx-stainless-read-timeout: 600\r\nIdempotency-Key: stainless-python-retry-%08d\r\n"
    "Content-Length: 413\r\n\r\n"
)
"""Headers as OpenAI's Python client sends them, with a key that is new each time."""


class Caller:
    """An exchange of a caller who repeats its head."""

    method, path, query, old, paused = "POST", "/v1/chat/completions", "", False, False
    headers: ClassVar = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}

    def __init__(self, note: object) -> None:
        self.note, self.body = note, BODY
        self.started = self.closed = False
        self.on_cancel = self.on_pause = self.on_resume = None
        self.status = 0

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        self.started = self.closed = True
        self.status = status


class Engine:
    """Takes requests, and answers the oldest when told to."""

    headers: ClassVar = {"content-type": "application/json", "content-length": str(len(ANSWER))}

    def __init__(self) -> None:
        self.waiting: deque[Receiver] = deque()

    def request(self, head: bytes, body: bytes, receiver: Receiver) -> Call:
        self.waiting.append(receiver)
        return cast(Call, None)

    def answer(self) -> None:
        receiver = self.waiting.popleft()
        receiver.on_head(200, self.headers)
        receiver.on_body(ANSWER.encode())
        receiver.on_end()


async def request_us() -> float:
    """The best of some rounds, with `RUNNING` requests on the engines all the time."""
    config, engine = read(CONFIG), Engine()
    core = Core(config, config.knobs, random.Random(1), {})
    ledger = Ledger(config, core.task_class)
    driver = Driver(core, {node.name: Node(node, "", cast(Upstream, engine)) for node in config.nodes}, config.limits, ledger)
    app = App(config, auth.keyring(config, {}), core, driver)
    first = Caller(None)
    app(cast(Exchange, first))
    engine.answer()
    if first.status != 200:
        raise RuntimeError(f"the gateway answered {first.status}")

    def ask(requests: int) -> None:
        for _ in range(RUNNING):
            app(cast(Exchange, Caller(first.note)))
        for _ in range(requests):
            app(cast(Exchange, Caller(first.note)))
            engine.answer()
        while engine.waiting:
            engine.answer()

    ask(2_000)
    gc.collect()
    gc.freeze()
    best = float("inf")
    for _ in range(ROUNDS):
        before = time.process_time()
        ask(REQUESTS)
        best = min(best, (time.process_time() - before) / (REQUESTS + RUNNING) * 1e6)
    gc.unfreeze()
    driver.close()
    return best


def head_us() -> float:
    limits, best = Limits(), float("inf")
    for turn in range(ROUNDS):
        raws = [(OFFICIAL % (turn * REQUESTS + number)).encode() for number in range(REQUESTS)]
        before = time.process_time()
        for raw in raws:
            heads.request(raw, limits)
        best = min(best, (time.process_time() - before) / REQUESTS * 1e6)
    return best


def measure() -> list[Row]:
    return [
        Row("request in process, without HTTP", asyncio.run(request_us()), "us CPU"),
        Row("head of 18 headers that is new", head_us(), "us CPU"),
    ]


if __name__ == "__main__":
    main(measure)
