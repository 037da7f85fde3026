"""The store: what it keeps, what keeps it from starting, what a full disk does."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from tests.gateway.world import BODY, Asked, ask, get, never, put_json, run, until, world

from penstock.config import Config, Listen, Tickets
from penstock.errors import CallError, ConfigError
from penstock.gateway import records
from penstock.gateway.home import place
from penstock.gateway.records import JobRow
from penstock.gateway.store import MEMORY, Store
from penstock.metrics.books import JobBook

ROOM = 1 << 30


@asynccontextmanager
async def opened(path: Path | str, most_bytes: int = ROOM) -> AsyncIterator[Store]:
    store = Store(str(path), JobBook(), most_bytes)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def row(id: str, tenant: str = "") -> JobRow:
    return JobRow(id, tenant, None, None, "queued", "chat", "m", "", "r", 1.0, 9e9)


async def put(store: Store, id: str, body: bytes = b"{}") -> None:
    def operation(connection: sqlite3.Connection) -> None:
        store.make_room(connection)
        records.insert(connection, [(row(id), b"{}", body)])

    await store.run(operation)


def refused(path: Path | str) -> str:
    """What it says when it does not open."""

    async def test() -> None:
        with pytest.raises(ConfigError) as error:
            async with opened(path):
                pass
        said.append(error.value)

    said: list[ConfigError] = []
    run(test)
    assert said[0].key == "tickets.path"
    return said[0].message


def test_what_was_stored_is_there_again(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "a" / "b" / "t.sqlite"
        async with opened(path) as store:
            await asyncio.gather(*(put(store, f"j{n}") for n in range(300)))
            assert await store.run(lambda connection: records.end(connection, "j7", "completed", "c", 2.0, 9e9, 200, b"{}"))
        async with opened(path) as store:
            assert [job.id for job in await store.run(records.left)] == [f"j{n}" for n in range(300) if n != 7]
            found = await store.run(lambda connection: records.find(connection, "j7", ""))
            assert found is not None and (found[0].status, found[0].code, found[1]) == ("completed", 200, b"{}")

    run(test)


def test_operations_that_wait_share_a_transaction(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path / "t.sqlite") as store:
            await asyncio.gather(*(put(store, f"j{n}") for n in range(200)))
            await until(lambda: store.book.store_s.count)
            assert store.book.store_s.count < 50

    run(test)


def test_a_job_ends_once() -> None:
    async def test() -> None:
        async with opened(MEMORY) as store:
            await put(store, "j")
            ends = [lambda c, s=status: records.end(c, "j", s, "", 2.0, 9e9) for status in ("completed", "cancelled", "expired")]
            assert await asyncio.gather(*(store.run(end) for end in ends)) == [True, False, False]
            found = await store.run(lambda connection: records.find(connection, "j", ""))
            assert found is not None and found[0].status == "completed"

    run(test)


def test_an_operation_that_fails_fails_alone() -> None:
    async def test() -> None:
        async with opened(MEMORY) as store:
            await put(store, "j0")
            got = await asyncio.gather(*(put(store, f"j{n}") for n in range(4)), return_exceptions=True)
            assert [type(one) for one in got] == [CallError, type(None), type(None), type(None)]
            assert len(await store.run(records.left)) == 4

            def wrong(connection: sqlite3.Connection) -> None:
                raise ZeroDivisionError

            with pytest.raises(CallError) as error:
                await store.run(wrong)
            assert error.value.status == 500
            assert len(await store.run(records.left)) == 4

    run(test)


def test_a_closed_store_says_so() -> None:
    async def test() -> None:
        async with opened(MEMORY) as store:
            pass
        with pytest.raises(CallError) as error:
            await put(store, "j")
        assert error.value.status == 503

    run(test)


async def _refusal(work: Awaitable[None]) -> CallError | None:
    try:
        await work
    except CallError as error:
        return error
    return None


def test_new_work_is_refused_beyond_the_bound_and_old_work_still_ends() -> None:
    async def test() -> None:
        async with opened(MEMORY, most_bytes=1 << 20) as store:
            ids: list[str] = []
            while (refusal := await _refusal(put(store, f"j{len(ids)}", b"x" * 50_000))) is None:
                ids.append(f"j{len(ids)}")
            assert (refusal.status, refusal.code) == (503, "store_full")
            assert 15 < len(ids) < 30
            for id in ids:
                end = partial(records.end, id=id, status="completed", task="", at=2.0, expires_at=9e9, code=200, result=b"y" * 50_000)
                assert await store.run(end)
            await store.run(lambda connection: records.forget(connection, 9.5e9))
            await put(store, "again")

    run(test)


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "state" / "t.sqlite"
        for _ in range(2):
            async with opened(path) as store:
                await put(store, f"j{os.urandom(4).hex()}")
                for file in path.parent.iterdir():
                    assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            path.chmod(0o644)

    run(test)


def _read(connection: sqlite3.Connection, pragma: str) -> object:
    return connection.execute(f"PRAGMA {pragma}").fetchone()


def test_writes_wait_for_the_disk(tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(tmp_path / "t.sqlite") as store:
            for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("locking_mode", "exclusive")):
                assert await store.run(partial(_read, pragma=pragma)) == (value,)

    run(test)


# --- what keeps it from starting


def test_two_gateways_never_share_a_store(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"

    async def test() -> None:
        async with opened(path) as store:
            await put(store, "j")
            ended = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", OPEN, str(path)), stdout=-1, stderr=-1, env={"PYTHONPATH": ":".join(sys.path)}
            )
            stdout, stderr = await ended.communicate()
            assert b"another gateway has it open" in stdout, stderr
            assert str(path).encode() in stdout

    run(test)


OPEN = """
import asyncio, sys
from penstock.errors import ConfigError
from penstock.gateway.store import Store
from penstock.metrics.books import JobBook

async def main():
    store = Store(sys.argv[1], JobBook(), 1 << 30)
    try:
        await store.open()
    except ConfigError as error:
        print(error)
    else:
        print("opened")
        await store.close()

asyncio.run(main())
"""


def test_damage_is_said_with_the_fix(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    path.write_bytes(b"no database, but long enough to be one" * 100)
    assert "move it away" in refused(path)

    async def fill() -> None:
        async with opened(tmp_path / "good.sqlite") as store:
            for n in range(50):
                await put(store, f"j{n}", os.urandom(5_000))

    run(fill)
    whole = (tmp_path / "good.sqlite").read_bytes()
    path.write_bytes(whole[:8_192] + b"\xff" * 12_288 + whole[20_480:])
    assert "move it away" in refused(path)
    path.write_bytes(whole[: len(whole) // 2])
    assert "move it away" in refused(path)


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = path.read_bytes()
    assert "another program's" in refused(path)
    assert path.read_bytes() == before


def test_a_later_versions_store_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"

    async def make() -> None:
        async with opened(path):
            pass

    run(make)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "later version" in refused(path)


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    assert str(tmp_path) in refused(tmp_path)
    (tmp_path / "file").write_text("")
    assert "tickets.path" in refused(tmp_path / "file" / "t.sqlite")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    yield from _mounted(tmp_path / "small", "size=1m")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody can write into; root can, into any that is only marked so."""
    folder = tmp_path / "fixed"
    if os.geteuid():
        folder.mkdir(mode=0o500)
        yield folder
    else:
        yield from _mounted(folder, "ro")


def _mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    if (
        shutil.which("mount") is None
        or subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode
    ):
        pytest.skip("file systems cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_read_only_folder_is_said(read_only: Path) -> None:
    assert "make its folder writable" in refused(read_only / "t.sqlite")


def test_a_full_disk_is_said_at_start(small_disk: Path) -> None:
    (small_disk / "rest").write_bytes(b"x" * (1_048_576 - 8_192))
    assert "free space" in refused(small_disk / "t.sqlite")


def test_on_a_full_disk_the_gateway_lives_on(small_disk: Path) -> None:
    async def test() -> None:
        config = Config(tickets=Tickets(path=str(small_disk / "t.sqlite"), running=1))
        async with world(never, config=config) as w:
            ids = []
            long = BODY | {"messages": [{"role": "user", "content": "x" * 20_000}]}
            while (got := await ask(w.port, long, headers={"prefer": "respond-async"})).status == 202:
                ids.append(got.json["id"])
            assert (got.status, got.error["code"]) == (503, "not_stored")
            assert "full" in got.error["message"]
            assert int(got.headers["retry-after"]) > 0
            assert 5 < len(ids) < 60
            assert (await get(w.port, "/ready")).status == 200
            assert w.gateway.ledger.jobs.unstored == 1
            for id in ids:
                assert (await get(w.port, f"/v1/tickets/{id}")).status == 200

    run(test)


def test_results_wait_for_a_disk_that_is_full_and_are_written_once_it_is_not(small_disk: Path) -> None:
    gate = asyncio.Event()

    async def behave(asked: Asked) -> None:
        await gate.wait()
        put_json(asked, {"text": "y" * 100_000})

    async def test() -> None:
        config = Config(tickets=Tickets(path=str(small_disk / "t.sqlite")))
        async with world(behave, config=config) as w:
            id = (await ask(w.port, BODY, headers={"prefer": "respond-async"})).json["id"]
            await until(lambda: w.asked)
            rest = small_disk / "rest"
            with rest.open("wb", buffering=0) as stream:
                try:
                    while stream.write(b"x" * 4_096):
                        pass
                except OSError:
                    pass
            gate.set()
            await until(lambda: w.gateway.ledger.jobs.unstored)
            assert (await get(w.port, f"/v1/tickets/{id}")).json["status"] == "running"
            rest.unlink()
            assert (await get(w.port, f"/v1/tickets/{id}?wait=20")).json["status"] == "completed"
            assert len(w.asked) == 1

    run(test)


# --- where it is


def test_the_default_place_is_the_users_state_folder_by_address() -> None:
    config = Config(listen=Listen(host="::1", port=8080))
    assert place(config, {"XDG_STATE_HOME": "/state"}) == "/state/penstock/tickets-__1-8080.sqlite"
    assert place(config, {"HOME": "/home/u", "XDG_STATE_HOME": "relative"}) == "/home/u/.local/state/penstock/tickets-__1-8080.sqlite"
    with pytest.raises(ConfigError, match="name a file"):
        place(config, {})


def test_a_gateway_on_any_port_keeps_no_file_unless_one_is_named() -> None:
    assert place(Config(listen=Listen(port=0)), {}) == MEMORY
    assert place(Config(listen=Listen(port=0), tickets=Tickets(path="/x/../t.sqlite")), {}) == "/x/../t.sqlite"
