"""Real engine processes that are killed, or stopped, in the middle of streams."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.gateway.cutting import Said, said
from tests.gateway.world import ask, run, until

from penstock.config import Config, Limits, Listen, Node
from penstock.gateway.service import Gateway

MODELS = ("deepseek-v3", "deepseek-r1")


class Process:
    """One engine, in a process of its own, that comes back on its port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.popen = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        models = [part for model in MODELS for part in ("--model", model)]
        command = [sys.executable, "-m", "penstock", "engine", "--nodes", "1", "--port", str(self.port), "--speed", "5", *models]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def restart(self) -> None:
        self.kill()
        self.popen = self._start()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


@asynccontextmanager
async def _fleet(size: int, limits: Limits | None = None) -> AsyncIterator[tuple[Gateway, list[Process]]]:
    processes = [Process(_free_port()) for _ in range(size)]
    nodes = tuple(Node(name=f"n{index}", url=f"http://127.0.0.1:{one.port}") for index, one in enumerate(processes))
    gateway = Gateway(Config(nodes=nodes, limits=limits or Limits(), listen=Listen(port=0), admin=Listen(port=0), probe_s=0.1), seed=1)
    await gateway.start()
    try:
        await until(lambda: all(node.reported_at > 0 and node.models for node in gateway.core.nodes))
        yield gateway, processes
    finally:
        await gateway.stop(0.0)
        for one in processes:
            one.kill()


def _body(number: int) -> dict[str, Any]:
    return {
        "model": MODELS[number % 2],
        "messages": [{"role": "user", "content": f"Tell me of penstock {number}."}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 120,
    }


def _compare(got: Said, whole: Said) -> None:
    assert got.error is None
    assert (got.thoughts, got.text, got.reasons, got.dones) == (whole.thoughts, whole.text, whole.reasons, 1)
    assert got.usage is not None and whole.usage is not None
    assert got.usage["total_tokens"] == whole.usage["total_tokens"]


def test_streams_outlive_engines_that_are_killed() -> None:
    async def test() -> None:
        async with _fleet(3) as (gateway, processes):
            bodies = [_body(number) for number in range(24)]
            whole = [said(answer) for answer in await asyncio.gather(*(ask(gateway.port, body) for body in bodies))]
            over = asyncio.Event()
            killed: list[int] = []

            async def kill() -> None:
                # The one that has most to do dies each time all are well.
                while not over.is_set():
                    await until(lambda: all(node.state == "up" for node in gateway.core.nodes) or over.is_set())
                    await asyncio.sleep(random.uniform(0.0, 0.3))
                    busiest = max(range(3), key=lambda index: gateway.core.nodes[index].running)
                    killed.append(gateway.core.nodes[busiest].running)
                    processes[busiest].restart()

            killing = asyncio.ensure_future(kill())
            for _ in range(3):
                got = [said(answer) for answer in await asyncio.gather(*(ask(gateway.port, body) for body in bodies))]
                for one, other in zip(got, whole, strict=True):
                    _compare(one, other)
            over.set()
            await killing
            assert sum(book.continued for book in gateway.driver.ledger.classes.values()) > 0
            assert sum(killed) > 0

    run(test)


def test_a_stopped_engine_is_left_after_the_silence_that_is_allowed() -> None:
    async def test() -> None:
        async with _fleet(2, Limits(idle_s=0.5)) as (gateway, processes):
            whole = said(await ask(gateway.port, _body(0)))
            asking = asyncio.ensure_future(ask(gateway.port, _body(0)))
            await until(lambda: any(call.flowing for call in gateway.driver.calls.values()))
            [call] = gateway.driver.calls.values()
            assert call.node is not None
            stopped = processes[int(call.node.config.name[1:])]
            stopped.popen.send_signal(signal.SIGSTOP)
            try:
                _compare(said(await asking), whole)
            finally:
                stopped.popen.send_signal(signal.SIGCONT)

    run(test)
