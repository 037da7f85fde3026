"""One supervised process: its command, its output with its name before each line, and its restarts."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from penstock.supervisor.backoff import Backoff
from penstock.supervisor.leash import VARIABLE

USAGE = 2
"""Exit code of a process that was given something it cannot use: starting it again would not help."""

STARTS = 3
"""Starts that a process has to become ready for the first time."""

_READ_BYTES = 65_536


@dataclass(frozen=True)
class Service:
    """What to run, and how to see that it is ready."""

    name: str
    command: tuple[str, ...]
    ready: tuple[tuple[str, int], ...]
    """Hosts and ports that answer /health once it is ready."""
    stop_s: float = 5.0
    """How long it may take to end after SIGTERM."""
    ready_s: float = 60.0
    """How long it may take to become ready; a machine on which the gateway needs longer than this is not going to run it well."""


class Child:
    """A service's process, started again whenever it ends, until `stop`."""

    def __init__(self, service: Service, say: Callable[[str, str], None]) -> None:
        self.service = service
        self.process: Process | None = None
        self.proven = False
        """It has been ready: what ends it later will pass."""
        self._say = say
        self._backoff = Backoff()
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Keep it running. Returns 0 once stopped, or the process's exit code when starting it again makes no sense."""
        for start in count(1):
            if self._stopping.is_set():
                break
            started = time.monotonic()
            code = await self._run_once()
            if self._stopping.is_set():
                break
            if code == USAGE:
                return USAGE
            if start >= STARTS and not self.proven:
                self._say(self.service.name, f"ended with {_name(code)}, and was never ready in {STARTS} starts")
                return 1
            wait_s = self._backoff.after(time.monotonic() - started)
            self._say(self.service.name, f"ended with {_name(code)}; starting again in {wait_s:.1f} s")
            try:
                await asyncio.wait_for(self._stopping.wait(), wait_s)
            except TimeoutError:
                continue
        return 0

    async def _run_once(self) -> int:
        self.process = process = await asyncio.create_subprocess_exec(
            *self.service.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            env={**os.environ, VARIABLE: str(os.getpid()), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # a terminal's Ctrl-C reaches the supervisor alone, which stops its children in order
        )
        if self._stopping.is_set():
            self.signal(signal.SIGTERM)
        assert process.stdout is not None
        await self._relay(process.stdout)
        return await process.wait()

    async def _relay(self, output: asyncio.StreamReader) -> None:
        rest = b""
        while data := await output.read(_READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > _READ_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._say(self.service.name, line.decode("utf-8", "replace"))
        if rest:
            self._say(self.service.name, rest.decode("utf-8", "replace"))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if there is one."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    async def stop(self, running: asyncio.Task[int]) -> None:
        """End the process: SIGTERM, and SIGKILL when that takes longer than `stop_s`. `running` is the task of `run`."""
        self._stopping.set()
        self.signal(signal.SIGTERM)
        done, _ = await asyncio.wait([running], timeout=self.service.stop_s)
        if not done:
            self._say(self.service.name, f"did not end within {self.service.stop_s:g} s; killed")
            self.signal(signal.SIGKILL)
            await asyncio.wait([running])


def _name(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
