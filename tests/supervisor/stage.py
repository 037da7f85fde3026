"""A running supervisor, as its tests see it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 20.0


class Stage:
    """A running supervisor and what it has printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.printed = ""

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read on until `pattern` has been printed."""
        assert self.process.stdout is not None
        while (found := re.search(pattern, self.printed)) is None:
            line = self.process.stdout.readline()
            assert line, f"ended without {pattern!r}:\n{self.printed}"
            self.printed += line
        return found

    def pid_of(self, name: str) -> int:
        return int(self.wait_for(rf"{name} \| pid (\d+) serves")[1])

    def end(self) -> int:
        """Read what is left and return the exit code."""
        rest, _ = self.process.communicate(timeout=PATIENCE_S)
        self.printed += rest
        return self.process.returncode


@contextmanager
def running(*arguments: str, patience_s: float = 2 * PATIENCE_S) -> Iterator[Stage]:
    """`python ARGUMENTS`, ended when the test is done with it, or takes too long."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
    )
    watchdog = threading.Timer(patience_s, process.kill)
    watchdog.start()
    try:
        yield Stage(process)
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=PATIENCE_S)


def gone(pid: int) -> bool:
    """Whether the process has ended; waits for it a while."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False
