"""Processes under measurement: started here, watched through /proc, and ended by their own ids."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")
PENSTOCK = (sys.executable, "-m", "penstock")
SOURCES = Path(__file__).resolve().parent.parent / "src"


class CannotStart(Exception):
    """What is to be measured did not start."""


class Process:
    """A child with everything it printed in a file; leaving the `with` block ends it."""

    def __init__(self, command: Sequence[str], log: Path, env: dict[str, str] | None = None) -> None:
        self._log = log
        with log.open("wb") as output:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": str(SOURCES), "XDG_STATE_HOME": str(log.parent.absolute())} | (env or {}),
                start_new_session=True,
            )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()

    @property
    def pid(self) -> int:
        return self._child.pid

    def family(self) -> list[int]:
        """Its process id and its descendants'."""
        found, waiting = [], [self.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    waiting += map(int, task.read_text().split())
                except OSError:
                    pass
        return found

    def cpu_us(self) -> int:
        """CPU time of it and its living descendants, user and kernel."""
        ticks = 0
        for pid in self.family():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            ticks += int(fields[11]) + int(fields[12])
        return ticks * TICK_US

    def listening(self, port: int, within_s: float = 20.0) -> Process:
        """Waits until something accepts on the port. Raises CannotStart when it ends or takes too long."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            if self._child.poll() is not None:
                break
            if accepts(port):
                return self
            time.sleep(0.01)
        raise CannotStart(self.printed()[-400:] or f"nothing listens on port {port}")

    def printed(self) -> str:
        return self._log.read_text(errors="replace").strip()

    def end(self) -> None:
        """SIGTERM to it, then, after five seconds, SIGKILL to its session, which holds only what it started."""
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
                self._child.wait()


def resident_mb(pid: int) -> float:
    """Resident memory of one process, in MB of 2**20 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1_024
    return 0.0


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, `count` in a row."""
    for first in range(26_100, 26_900, count):
        held: list[socket.socket] = []
        try:
            for port in range(first, first + count):
                held.append(socket.socket())
                held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                held[-1].bind(("127.0.0.1", port))
        except OSError:
            continue
        else:
            return list(range(first, first + count))
        finally:
            for one in held:
                one.close()
    raise CannotStart(f"no {count} free ports in a row from 26100 to 26900")
