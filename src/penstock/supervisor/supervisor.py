"""Starts services in order, watches them, and stops them in the opposite order on one SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence

from penstock.supervisor.ready import ready
from penstock.supervisor.service import Child, Service

NEVER_READY = 1
"""Exit code."""


async def supervise(services: Sequence[Service], announce: Callable[[], None]) -> int:
    """Run the services until a signal comes. Returns an exit code: 0 stopped as asked, 1 never ready, 2 a service was called wrongly.

    `announce` is called once, when all of them are ready.
    """
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    say = _Printer(services, asked).say
    children = [Child(service, say) for service in services]
    running = {child: loop.create_task(child.run()) for child in children}

    def on_signal() -> None:
        if asked.is_set():  # asked twice: no more patience
            for child in children:
                child.signal(signal.SIGKILL)
        asked.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    try:
        code = await _watch(children, list(running.values()), announce, asked)
        if code == NEVER_READY:
            say("up", f"not everything was ready within {_patience_s(children):g} s")
        return code
    finally:
        # The last that was started is the one callers talk to: it drains while what it needs still runs.
        for child in reversed(children):
            await child.stop(running[child])
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)


async def _watch(children: Sequence[Child], running: list[asyncio.Task[int]], announce: Callable[[], None], asked: asyncio.Event) -> int:
    stop = asyncio.ensure_future(asked.wait())
    started = asyncio.ensure_future(asyncio.wait_for(_all_ready(children), _patience_s(children)))
    try:
        await asyncio.wait([stop, started, *running], return_when=asyncio.FIRST_COMPLETED)
        if started.done():
            if started.exception() is not None:
                return NEVER_READY
            for child in children:
                child.proven = True
            announce()
            await asyncio.wait([stop, *running], return_when=asyncio.FIRST_COMPLETED)
        return max((task.result() for task in running if task.done()), default=0)
    finally:
        for future in (stop, started):
            future.cancel()
        await asyncio.gather(stop, started, return_exceptions=True)


def _patience_s(children: Sequence[Child]) -> float:
    return max(child.service.ready_s for child in children)


async def _all_ready(children: Sequence[Child]) -> None:
    await asyncio.gather(*(ready(host, port) for child in children for host, port in child.service.ready))


class _Printer:
    """Children's lines on our own output, each behind its service's name."""

    def __init__(self, services: Sequence[Service], closed: asyncio.Event) -> None:
        self._width = max(len(service.name) for service in services)
        self._closed = closed

    def say(self, name: str, line: str) -> None:
        try:
            print(f"{name:<{self._width}} | {line}", flush=True)
        except OSError:
            # Nobody reads us any more; what is still buffered must not fail again when the process ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._closed.set()
