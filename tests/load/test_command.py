"""`penstock bench` as a person runs it: exit codes, one clear line, JSON on stdout alone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import uvloop
from tests.load.server import Engine, answer, error

import penstock

COMMAND = (sys.executable, "-m", "penstock", "bench")
SOURCES = Path(penstock.__file__).resolve().parent.parent


class Ended(NamedTuple):
    code: int
    out: str
    err: str


async def command(*options: str, when: Callable[[], bool] | None = None) -> Ended:
    """Runs the command; once `when` holds it gets a Ctrl-C."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *options,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(SOURCES)},
    )
    if when is not None:
        while not when() and process.returncode is None:
            await asyncio.sleep(0.01)
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


def bench(*options: str, key: str | None = None) -> Ended:
    """Runs the command against a quick engine."""

    async def run() -> Ended:
        async with Engine(lambda index, body: answer(2, 0.0, 0.0), key) as engine:
            return await command("--url", engine.url, *options)

    return uvloop.run(run())


def test_json_is_one_object_on_stdout() -> None:
    ended = bench("--rate", "100", "--duration", "0.3", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["completed"] > 5


def test_table_states_the_objective_it_used() -> None:
    ended = bench("--concurrency", "2", "--duration", "0.3", "--slo-ttft", "1.5")
    assert ended.code == 0, ended.err
    assert "first token within 1.5 s" in ended.out
    assert "at most 0.1 s between tokens" in ended.out


def test_trace_file_is_replayed(tmp_path: Path) -> None:
    rows = [{"timestamp": at, "input_length": 600, "output_length": 3, "hash_ids": [0, at]} for at in (0, 100, 200, 9_000)]
    trace = tmp_path / "trace.jsonl"
    trace.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ended = bench("--trace", str(trace), "--limit", "3", "--speedup", "2", "--json")
    assert ended.code == 0, ended.err
    result = json.loads(ended.out)
    assert (result["mode"], result["completed"], result["span_s"]) == ("trace", 3, pytest.approx(0.1, abs=0.01))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "exactly one of"),
        (("--rate", "1", "--concurrency", "2"), "exactly one of"),
        (("--rate", "1", "--url", "ftp://x"), "not an address"),
        (("--rate", "1", "--url", "http://127.0.0.1:99999"), "not an address"),
        (("--rate", "1", "--url", "http://user@127.0.0.1"), "not an address"),
        (("--trace", "/no/such/file"), "/no/such/file"),
        (("--rate", "-1"), "rate"),
    ],
)
def test_wrong_usage_is_exit_2(options: tuple[str, ...], said: str) -> None:
    ended = bench(*options)
    assert ended.code == 2
    assert said in ended.err
    assert "Traceback" not in ended.err


def test_refused_connection_is_one_line_and_exit_1() -> None:
    async def run() -> Ended:
        async with Engine(lambda index, body: answer(1, 0.0, 0.0)) as engine:
            url = engine.url
        return await command("--url", url, "--rate", "1")

    ended = uvloop.run(run())
    assert ended.code == 1
    assert ended.err.startswith("penstock: http://127.0.0.1:")
    assert len(ended.err.splitlines()) == 1


def test_search_ends_when_the_server_is_gone() -> None:
    async def run() -> Ended:
        async with Engine(lambda index, body: answer(1, 0.0, 0.0)) as engine:
            searching = asyncio.create_task(command("--url", engine.url, "--find-capacity", "--duration", "60"))
            while len(engine.bodies) < 3:
                await asyncio.sleep(0.01)
        return await searching

    ended = uvloop.run(run())
    assert ended.code == 1
    assert ended.out == ""
    assert "no answer (connect" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_wrong_key_is_one_line_and_exit_1() -> None:
    ended = bench("--rate", "1", "--key", "wrong", key="right")
    assert ended.code == 1
    assert "401: wrong key (--key gives the key)" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert bench("--rate", "50", "--duration", "0.2", "--key", "right", key="right").code == 0


def test_errors_are_shown_with_the_servers_message() -> None:
    async def run() -> Ended:
        async with Engine(lambda index, body: error(404, "the model `x` does not exist")) as engine:
            return await command("--url", engine.url, "--rate", "50", "--duration", "0.2", "--model", "x")

    ended = uvloop.run(run())
    assert ended.code == 0
    assert "http_4xx: 404: the model `x` does not exist" in ended.err


def test_interrupt_ends_the_run_and_prints_what_was_seen() -> None:
    async def run() -> Ended:
        async with Engine(lambda index, body: answer(2, 0.0, 0.0)) as engine:
            return await command("--url", engine.url, "--rate", "100", "--duration", "300", "--json", when=lambda: len(engine.bodies) > 10)

    ended = uvloop.run(run())
    assert ended.code == 0, ended.err
    result = json.loads(ended.out)
    assert result["interrupted"]
    assert result["completed"] >= 10
    assert "interrupted" in ended.err
