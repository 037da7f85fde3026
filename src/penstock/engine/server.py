"""`penstock engine`: some nodes on consecutive ports in one process, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from ipaddress import ip_address

import msgspec
import uvloop

from penstock.config import Limits
from penstock.engine import profiles
from penstock.engine.node import Node
from penstock.errors import ConfigError
from penstock.http1 import Server

_DRAIN_S = 30.0
_CUT_S = 0.2


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve, and where."""

    nodes: int = 4
    host: str = "127.0.0.1"
    port: int = 9001
    """Of the first node; 0 for any free ones."""
    profile: str = "mooncake-demo"
    models: tuple[str, ...] = ("deepseek-v3",)
    speed: float = 1.0
    key: str = ""
    """Bearer key that callers must send; empty for none."""


class Engines:
    """Nodes that listen."""

    def __init__(self, options: Options) -> None:
        _check_place(options)
        profile = profiles.load(options.profile)
        self._options = options
        self.nodes = [Node(profile, options.models, options.speed, options.key.encode()) for _ in range(options.nodes)]
        self._servers = [Server(node.app, Limits()) for node in self.nodes]
        self.ports: list[int] = []

    async def open(self) -> None:
        """Listen. Raises ConfigError where a port cannot be had; then none is open."""
        asked = self._options
        for index, server in enumerate(self._servers):
            port = asked.port + index if asked.port else 0
            try:
                self.ports.append(await server.listen(asked.host, port))
            except (OSError, OverflowError) as problem:
                await self.close(0.0)
                raise ConfigError(f"cannot listen on {asked.host}:{port}: {reason(problem)}", key="port") from None

    async def close(self, drain_s: float) -> None:
        """Take no more calls; let those under way finish for so long."""
        await asyncio.gather(*(server.drain(drain_s) for server in self._servers[: len(self.ports)]))
        self.ports.clear()

    def __str__(self) -> str:
        asked = self._options
        host = f"[{asked.host}]" if ":" in asked.host else asked.host
        urls = " ".join(f"http://{host}:{port}" for port in self.ports)
        return f"penstock engine: {asked.profile} at {asked.speed:g}x serves {', '.join(asked.models)} on {urls}"


def reason(problem: Exception) -> str:
    """The error's text alone: asyncio wraps it with the address."""
    if isinstance(problem, OSError) and problem.errno:
        return os.strerror(problem.errno)
    return str(problem)


def _check_place(options: Options) -> None:
    if options.port and options.port + options.nodes - 1 > 65_535:
        raise ConfigError(f"{options.nodes} nodes from port {options.port} on go beyond 65535", key="port")
    refuse_exposure(options.host, options.key)


def refuse_exposure(host: str, key: str) -> None:
    """Raise ConfigError for an address that other machines reach where callers need no key."""
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback and not key:
        raise ConfigError(f"{host} is not a loopback address: give callers a key with --key-env", key="host")


async def _serve(options: Options) -> None:
    engines = Engines(options)
    loop = asyncio.get_running_loop()
    stopped: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.put_nowait, number)
    await engines.open()
    gc.collect()
    gc.freeze()  # what lives now lives as long as the process: the collector need not walk it again
    print(engines, flush=True)
    first = await stopped.get()
    if first == signal.SIGINT:
        await engines.close(_CUT_S)
        return
    closing = asyncio.ensure_future(engines.close(_DRAIN_S))
    again = asyncio.ensure_future(stopped.get())
    await asyncio.wait((closing, again), return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    closing.cancel()


def serve(options: Options) -> None:
    """Run until SIGTERM (finishes calls under way, at most 30 s) or Ctrl-C or a second signal (cuts them). Raises ConfigError."""
    uvloop.run(_serve(options))
