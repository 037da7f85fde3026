"""CPU of a request inside the gateway's process, without sockets: the real server, app, driver, core, ledger and clients between
connections that are made up; and of a head that differs from the one before it, as official clients send them.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
import random
import subprocess
import sys
import time

import uvloop

from benchmarks.build import ROOT, builds
from benchmarks.cost import ANSWER, KEY, NODES
from benchmarks.row import Row, main
from penstock import config
from penstock.config import Limits
from penstock.core import Core
from penstock.gateway import auth
from penstock.gateway.app import App
from penstock.gateway.driver import Driver
from penstock.gateway.node import Node
from penstock.gateway.settings import read
from penstock.http1 import Server, Upstream
from penstock.http1 import head as heads
from penstock.http1.connection import Connection
from penstock.http1.line import Line
from penstock.http1.outbox import Outbox
from penstock.metrics.ledger import Ledger

ROUNDS, REQUESTS, TURNS, RUNNING = 7, 5_000, 150, 32
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


HEAD = (
    "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\n"
    f"Authorization: Bearer {KEY}\r\nContent-Length: {len(BODY)}\r\n\r\n"
).encode()
REPLY = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(ANSWER)}\r\n\r\n{ANSWER}".encode()


class Wire(asyncio.Transport):
    """One end of a connection without a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        self.sent.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Engine:
    """A node's connections: takes what is sent on them, and answers."""

    def __init__(self, node: config.Node, limits: Limits) -> None:
        self.upstream = Upstream(node.url, limits)
        self.upstream.now = asyncio.get_running_loop().time() + 1.0
        self.lines: list[tuple[Wire, Line]] = []
        for _ in range(RUNNING):
            wire, line = Wire(), Line(self.upstream)
            line.connection_made(wire)
            self.upstream.free(line)
            self.lines.append((wire, line))

    def answer(self) -> None:
        for wire, line in self.lines:
            if wire.sent:
                wire.sent.clear()
                line.data_received(REPLY)


async def request_us() -> float:
    """The best of some rounds, with up to `RUNNING` requests on the engines at a time."""
    settings = read(CONFIG)
    engines = {node.name: Engine(node, settings.limits) for node in settings.nodes}
    nodes = {node.name: Node(node, "", engines[node.name].upstream) for node in settings.nodes}
    core = Core(settings, settings.knobs, random.Random(1), {})
    driver = Driver(core, nodes, settings.limits, Ledger(settings, core.task_class))
    server = Server(App(settings, auth.keyring(settings, {}), core, driver), settings.limits)
    server.outbox = Outbox(asyncio.get_running_loop())
    callers = []
    for _ in range(RUNNING):
        wire, connection = Wire(), Connection(server)
        connection.connection_made(wire)
        callers.append((wire, connection))

    async def ask(turns: int) -> int:
        answers = 0
        for _ in range(turns):
            for wire, connection in callers:
                wire.sent.clear()
                connection.data_received(HEAD + BODY)
            await asyncio.sleep(0)
            for _ in range(RUNNING):
                for engine in engines.values():
                    engine.answer()
                await asyncio.sleep(0)
                if all(wire.sent for wire, _ in callers):
                    break
            answers += sum(len(wire.sent) == 1 and wire.sent[0].startswith(b"HTTP/1.1 200") for wire, _ in callers)
        return answers

    if await ask(50) != 50 * RUNNING:
        raise RuntimeError("the gateway refused")
    gc.collect()
    gc.freeze()
    best = float("inf")
    for _ in range(ROUNDS):
        before = time.process_time()
        answers = await ask(TURNS)
        best = min(best, (time.process_time() - before) / answers * 1e6)
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


def here() -> list[Row]:
    """Of the package that this process has found."""
    return [
        Row("request in process, without sockets", uvloop.run(request_us()), "us CPU"),
        Row("head of 18 headers that is new", head_us(), "us CPU"),
    ]


def measure() -> list[Row]:
    """Of each build, in a process of its own."""
    rows = []
    for build in builds():
        command = (build.python, "-m", "benchmarks.inprocess", "--here", "--json")
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | build.environment(ROOT))
        if done.returncode:
            rows.append(Row(f"{build.name}, in process", None, note=done.stderr.strip()[-160:].replace("\n", " ")))
            continue
        rows += [row._replace(name=f"{build.name}: {row.name}") for row in (Row(**one) for one in json.loads(done.stdout))]
    return rows


if __name__ == "__main__":
    main(here if "--here" in sys.argv[1:] else measure)
