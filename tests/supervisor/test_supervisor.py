"""Real processes under the real supervisor: started, restarted, stopped, and never left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import urllib.request
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from tests.supervisor.stage import PATIENCE_S, Stage, gone, running

PLAY = Path(__file__).with_name("play.py")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def supervised(*entries: str) -> AbstractContextManager[Stage]:
    return running(str(PLAY), "supervise", *entries)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_stops_everything_last_started_first(number: signal.Signals) -> None:
    with supervised(f"serve:{free_port()}", f"serve:{free_port()}") as stage:
        stage.wait_for("all ready")
        children = [stage.pid_of("a"), stage.pid_of("b")]
        stage.process.send_signal(number)
        assert stage.end() == 0
        assert all(gone(pid) for pid in children)
        assert re.findall(r"(\w) \| asked to stop", stage.printed) == ["b", "a"]


def test_a_crashed_service_is_started_again() -> None:
    port = free_port()
    with supervised(f"serve:{port}") as stage:
        stage.wait_for("all ready")
        first = stage.pid_of("a")
        with pytest.raises(OSError, match="."):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/crash", timeout=PATIENCE_S)
        stage.wait_for(r"a \| ended with exit code 7; starting again in 0.2 s\n(.*\n)*a \| pid \d+ serves")
        pids = re.findall(r"pid (\d+) serves", stage.printed)
        assert len(set(pids)) == 2
        assert gone(first)


def test_a_killed_service_is_named_by_its_signal() -> None:
    with supervised(f"serve:{free_port()}") as stage:
        os.kill(stage.pid_of("a"), signal.SIGKILL)
        stage.wait_for(r"a \| ended with SIGKILL; starting again in 0.2 s")


def test_a_service_that_was_called_wrongly_ends_everything_with_its_code() -> None:
    with supervised(f"serve:{free_port()}", f"refuse:{free_port()}") as stage:
        assert stage.end() == 2
        assert "b | cannot run like this" in stage.printed
        assert "starting again" not in stage.printed


def test_a_service_that_never_becomes_ready_ends_everything() -> None:
    with supervised(f"serve:{free_port()}", f"fail:{free_port()}") as stage:
        assert stage.end() == 1
        assert stage.printed.count("b | ended with exit code 3; starting again") == 2
        assert "b | ended with exit code 3, and was never ready in 3 starts" in stage.printed


def test_a_service_that_does_not_stop_is_killed() -> None:
    with supervised(f"stubborn:{free_port()}") as stage:
        stage.wait_for("all ready")
        child = stage.pid_of("a")
        stage.process.send_signal(signal.SIGINT)
        assert stage.end() == 0
        assert "a | did not end within 1 s; killed" in stage.printed
        assert gone(child)


def test_no_orphan_is_left_when_the_supervisor_is_killed() -> None:
    with supervised(f"serve:{free_port()}", f"serve:{free_port()}") as stage:
        stage.wait_for("all ready")
        children = [stage.pid_of("a"), stage.pid_of("b")]
        stage.process.kill()
        assert all(gone(pid) for pid in children)


def test_it_stops_when_nobody_reads_its_output() -> None:
    port = free_port()
    with supervised(f"serve:{port}") as stage:
        stage.wait_for("all ready")
        child = stage.pid_of("a")
        assert stage.process.stdout is not None
        stage.process.stdout.close()
        os.kill(child, signal.SIGKILL)
        assert stage.process.wait(PATIENCE_S) == 0
