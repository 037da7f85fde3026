"""`penstock gateway` and `penstock replay` as processes: what they print, how they end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.gateway.world import BODY, MODEL, STREAM, Asked, Caller, Engine, answer, ask, get, run, until

from penstock.events import Tick
from penstock.journal import MAGIC, SUFFIX, frame, read


class Process:
    """A gateway of its own, in front of one engine."""

    def __init__(self, process: asyncio.subprocess.Process, engine: Engine, port: int, admin_port: int) -> None:
        self.process, self.engine, self.port, self.admin_port = process, engine, port, admin_port

    async def end(self) -> tuple[int, str]:
        """Exit code and what it wrote to stderr."""
        _, stderr = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, stderr.decode()


async def _start(*arguments: str | Path, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "penstock",
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "NO_COLOR": "1"} | environment,
    )


async def _ends(*arguments: str | Path, **environment: str) -> tuple[int, str, str]:
    process = await _start(*arguments, **environment)
    stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return process.returncode, stdout.decode(), stderr.decode()


def _config(folder: Path, engine_port: int, more: str = "") -> Path:
    path = folder / "penstock.yaml"
    path.write_text(f"listen: 0\nadmin: 0\nnodes:\n  - {{name: n0, url: 'http://127.0.0.1:{engine_port}', models: [{MODEL}]}}\n{more}")
    return path


@asynccontextmanager
async def _gateway(folder: Path, behave: object = answer, *arguments: str | Path, more: str = "") -> AsyncIterator[Process]:
    engine = Engine("n0", behave)  # type: ignore[arg-type]
    await engine.start()
    process = await _start("gateway", "--config", _config(folder, engine.port, more), *arguments)
    try:
        assert process.stdout is not None
        lines = [(await process.stdout.readline()).decode() for _ in range(3)]
        ports = [int(line.split(":")[2].split("/")[0]) for line in lines]
        yield Process(process, engine, ports[0], ports[1])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await engine.stop()


def test_it_serves_says_where_and_ends_with_sigterm(tmp_path: Path) -> None:
    async def test() -> None:
        async with _gateway(tmp_path) as gateway:
            assert (await ask(gateway.port, BODY)).status == 200
            assert (await get(gateway.admin_port, "/metrics", host=f"127.0.0.1:{gateway.admin_port}")).status == 200
            gateway.process.send_signal(signal.SIGTERM)
            code, stderr = await gateway.end()
            assert code == 0
            assert "Traceback" not in stderr

    run(test)


def test_sigterm_lets_a_stream_end(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def behave(asked: Asked) -> None:
        await gate.wait()
        await answer(asked)

    async def test() -> None:
        async with _gateway(tmp_path, behave) as gateway:
            under_way = asyncio.ensure_future(ask(gateway.port, STREAM))
            await until(lambda: gateway.engine.open)
            gateway.process.send_signal(signal.SIGTERM)
            await until(lambda: not _accepts(gateway.port))
            gate.set()
            assert (await under_way).events[-1] == b"[DONE]"
            assert (await gateway.end())[0] == 0

    run(test)


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    async def behave(asked: Asked) -> None:
        await asyncio.Event().wait()

    async def test() -> None:
        async with _gateway(tmp_path, behave) as gateway, Caller(gateway.port) as caller:
            caller.send(STREAM)
            await until(lambda: gateway.engine.open)
            gateway.process.send_signal(signal.SIGINT)
            await until(lambda: not _accepts(gateway.port))
            gateway.process.send_signal(signal.SIGINT)
            assert (await gateway.end())[0] == 0

    run(test)


def test_a_killed_gateways_journal_replays(tmp_path: Path) -> None:
    folder = tmp_path / "journal"

    async def test() -> None:
        async with _gateway(tmp_path, answer, "--journal", folder) as gateway:
            for _ in range(20):
                await ask(gateway.port, STREAM)
            await until(lambda: sum(path.stat().st_size for path in folder.iterdir()) > 4_000)
            gateway.process.kill()
            await gateway.end()
        code, stdout, _ = await _ends("replay", folder)
        assert code == 0
        assert stdout.endswith("actions: identical\n")

        [path] = folder.iterdir()
        whole = path.read_bytes()
        path.write_bytes(whole[:-2])
        code, stdout, _ = await _ends("replay", folder)
        assert code == 0
        assert "was cut short" in stdout

        _, records, _ = read(whole, str(path))
        changed = next(record for record in records if record.actions)
        path.write_bytes(whole + frame((1e12, changed.event, [])))
        code, stdout, _ = await _ends("replay", folder)
        assert (code, "differs" in stdout, "expected  []" in stdout) == (1, True, True)

        (folder / f"0-00000{SUFFIX}").write_bytes(MAGIC + frame((0.0, Tick(), [])))
        code, _, stderr = await _ends("replay", folder)
        assert (code, stderr.count("\n"), "Traceback" in stderr) == (2, 1, False)

    run(test)


def test_without_a_place_for_tickets_it_serves_and_warns_that_they_end_with_it(tmp_path: Path) -> None:
    taken = tmp_path / "a file, not a folder"
    taken.write_text("")

    async def test() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        config = tmp_path / "penstock.yaml"
        config.write_text(f"listen: {port}\nadmin: 0\nnodes: ['http://127.0.0.1:9']\n")
        process = await _start("gateway", "--config", config, XDG_STATE_HOME=str(taken))
        assert process.stdout is not None
        assert (await process.stdout.readline()).startswith(b"API")
        process.send_signal(signal.SIGTERM)
        _, stderr = await process.communicate()
        assert "tickets will end with this process" in stderr.decode() and "tickets.path" in stderr.decode()

    run(test)


def test_what_keeps_it_from_starting_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    async def test() -> None:
        taken = socket.create_server(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        config = _config(tmp_path, 1)
        blocked = tmp_path / "file"
        blocked.write_text("")
        bad = tmp_path / "bad.yaml"
        bad.write_text("nodes:\n  - {name: n0, url: 'ftp://127.0.0.1'}\n")
        reachable = tmp_path / "reachable.yaml"
        reachable.write_text("listen: {host: 0.0.0.0, port: 0}\nadmin: 0\nnodes: ['http://127.0.0.1:1']\n")
        kept = tmp_path / "kept.yaml"
        kept.write_text(f"listen: 0\nadmin: 0\nnodes: ['http://127.0.0.1:1']\ntickets: {{path: {blocked}/tickets.sqlite}}\n")
        for arguments, said in (
            (("--config", kept), f"tickets.path: cannot keep tickets in {blocked}/tickets.sqlite: "),
            (("--config", config, "--port", port), f"listen.port: cannot listen on 127.0.0.1:{port}"),
            (("--config", config, "--admin-port", port), f"admin.port: cannot listen on 127.0.0.1:{port}"),
            (("--config", config, "--journal", blocked), "--journal: cannot write a journal"),
            (("--config", bad), f"{bad}:2: nodes[0].url"),
            (("--config", reachable), "listen.host"),
            (("--config", tmp_path / "none.yaml"), "No such file"),
        ):
            code, _, stderr = await _ends("gateway", *arguments, PENSTOCK_KEYS="")
            assert (code, said in stderr, "Traceback" in stderr) == (2, True, False), stderr
            assert next(line for line in stderr.splitlines() if "WARNING" not in line).startswith("penstock: ")
        taken.close()

    run(test)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
