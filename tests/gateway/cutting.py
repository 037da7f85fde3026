"""A gateway in front of real embedded engines, with a wire to each that breaks off where a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from tests.gateway.world import Answer, until

from penstock.config import Config, Listen, Node
from penstock.engine.server import Engines, Options
from penstock.gateway.service import Gateway

MODELS = ("deepseek-v3", "deepseek-r1")


UNCUT = 1 << 60


class Wire:
    """Passes bytes on, and breaks off the answers to calls after as many as `cuts` say, one call after the other. Wires share it."""

    def __init__(self, port: int, cuts: list[int]) -> None:
        self.to, self.port, self.cuts = port, 0, cuts
        self.asked: list[bytes] = []
        """Calls that went through."""
        self.sent: list[int] = []
        """Bytes of their answers."""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there, back = await asyncio.open_connection("127.0.0.1", self.to)
        call: list[int] = []
        """The number of the call that is under way, and where its answer is cut."""
        up = asyncio.ensure_future(self._ask(reader, back, call))
        down = asyncio.ensure_future(self._answer(there, writer, call))
        try:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            up.cancel()
            down.cancel()
            writer.transport.abort()
            back.transport.abort()

    async def _ask(self, reader: asyncio.StreamReader, back: asyncio.StreamWriter, call: list[int]) -> None:
        while data := await reader.read(65_536):
            if data.startswith(b"POST"):
                call[:] = [len(self.sent), self.cuts.pop(0) if self.cuts else UNCUT]
                self.asked.append(data)
                self.sent.append(0)
            elif data.startswith(b"GET"):
                call.clear()
            elif call:
                self.asked[call[0]] += data
            back.write(data)

    async def _answer(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter, call: list[int]) -> None:
        while data := await there.read(65_536):
            if call:
                number, cut = call
                before = self.sent[number]
                self.sent[number] += len(data)
                if before + len(data) >= cut:
                    writer.write(data[: cut - before])
                    await writer.drain()
                    return
            writer.write(data)
            await writer.drain()


class Cutting:
    def __init__(self, gateway: Gateway, engines: Engines, wires: list[Wire]) -> None:
        self.gateway, self.engines, self.wires = gateway, engines, wires

    @property
    def port(self) -> int:
        return self.gateway.port

    @property
    def asked(self) -> list[bytes]:
        return [asked for wire in self.wires for asked in wire.asked]

    def cut(self, *at: int) -> None:
        """Break off the next call after so many bytes, and each that goes on with it after the next number, on whatever node."""
        for wire in self.wires:
            wire.asked.clear()
            wire.sent.clear()
        self.wires[0].cuts[:] = at
        # What is spent on one answer is not missing for the next.
        self.gateway.core.retries = 10.0
        for node in self.gateway.core.nodes:
            node.breaker.close()

    def rested(self) -> bool:
        core, driver = self.gateway.core, self.gateway.driver
        return not core.flights and not driver.calls and not any(node.engine.running for node in self.engines.nodes)


@asynccontextmanager
async def cutting(
    nodes: int = 2, speed: float = 500.0, config: Config | None = None, journal: Path | None = None, each: Sequence[dict[str, Any]] = ()
) -> AsyncIterator[Cutting]:
    engines = Engines(Options(nodes=nodes, port=0, models=MODELS, speed=speed))
    await engines.open()
    cuts: list[int] = []
    wires = [Wire(port, cuts) for port in engines.ports]
    for wire in wires:
        await wire.open()
    own = each or ({},) * nodes
    known = tuple(Node(name=f"n{index}", url=f"http://127.0.0.1:{wire.port}", **own[index]) for index, wire in enumerate(wires))
    given = msgspec.structs.replace(config or Config(probe_s=0.05), nodes=known, listen=Listen(port=0), admin=Listen(port=0))
    gateway = Gateway(given, journal, seed=1)
    await gateway.start()
    try:
        await until(lambda: all(node.reported_at > 0 and node.models for node in gateway.core.nodes))
        yield Cutting(gateway, engines, wires)
    finally:
        await gateway.stop(0.0)
        for wire in wires:
            await wire.close()
        await engines.close(0.0)


class Said(msgspec.Struct):
    """A stream as its caller understands it."""

    thoughts: str
    text: str
    reasons: list[str]
    usage: dict[str, Any] | None
    dones: int
    ids: set[tuple[object, ...]]
    roles: int
    error: dict[str, Any] | None


def said(answer: Answer) -> Said:
    assert answer.status == 200, answer.body
    assert answer.whole
    found = Said("", "", [], None, answer.events.count(b"[DONE]"), set(), 0, None)
    for data in answer.events:
        if data == b"[DONE]":
            continue
        event = msgspec.json.decode(data)
        if "error" in event:
            found.error = event["error"]
            continue
        found.ids.add((event["id"], event["created"], event["model"], event["object"]))
        found.usage = event.get("usage") or found.usage
        for choice in event["choices"]:
            delta = choice.get("delta", choice)
            found.roles += "role" in delta
            found.thoughts += delta.get("reasoning_content") or ""
            found.text += delta.get("content") or delta.get("text") or ""
            if choice["finish_reason"]:
                found.reasons.append(choice["finish_reason"])
    return found
