"""The durable store of jobs: one SQLite file, one thread, one connection.

Whoever waits for an operation gets its result only after the transaction it ran in is on disk. Operations that arrive while one
transaction is being written share the next: a hundred tickets cost one fsync, not a hundred.

The connection holds SQLite's exclusive lock for as long as it is open, so two gateways never share a store; the system frees it
however a process ends.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from penstock.errors import CallError, ConfigError, PenstockError
from penstock.gateway.records import SCHEMA, VERSION
from penstock.metrics.books import JobBook

if TYPE_CHECKING:
    from sqlite3 import Connection

    Operation = Callable[[Connection], Any]

Result = TypeVar("Result")

MEMORY = ":memory:"
GROUP = 512
"""Operations that share a transaction at most."""
APPLICATION = 0x50535454
"""SQLite's application_id of our files: another program's database is not written into."""
LOCK_WAIT_S = 2.0
"""How long a start waits for another process to let go of the file: one that is just ending."""
CHECKED_BYTES = 256 * 1024 * 1024
"""A larger file is not read through at start."""
WAL_BYTES = 64 * 1024 * 1024
"""What the write-ahead log is cut back to."""
PAGE_BYTES = 4_096


class Store:
    """Opened by `open`, used by one event loop."""

    def __init__(self, path: str, book: JobBook, most_bytes: int) -> None:
        self.path, self.book = path, book
        self._most_pages = most_bytes // PAGE_BYTES
        self._queue: SimpleQueue[tuple[Operation, asyncio.Future[Any]] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread: Thread | None = None
        self._closed = False

    async def open(self) -> None:
        """Raises ConfigError, which names the file and the fix."""
        opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = Thread(target=self._run, args=(opened,), name="penstock-store", daemon=True)
        self._thread.start()
        await opened

    async def run(self, operation: Callable[[Connection], Result]) -> Result:
        """Run it and return its result once that is durable. Raises CallError 503 for what the disk refuses."""
        if self._closed:
            raise CallError(503, "tickets_unavailable", "The gateway is about to stop.")
        future: asyncio.Future[Result] = self._loop.create_future()
        self._queue.put((operation, future))
        return await future

    async def close(self) -> None:
        """After what is queued has been written."""
        self._closed = True
        if self._thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    def make_room(self, connection: Connection) -> None:
        """For operations that take new work in. Results of old work are written beyond the bound."""
        [pages], [free] = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count"))
        if pages - free > self._most_pages:
            size = self._most_pages * PAGE_BYTES >> 20
            raise CallError(503, "store_full", f"Tickets and files fill the {size} MiB they may have. Try again when some have expired.")

    # --- the thread

    def _run(self, opened: asyncio.Future[None]) -> None:
        try:
            connection = _open(self.path)
        except ConfigError as error:
            self._tell(opened.set_exception, error)
            return
        self._tell(opened.set_result, None)
        try:
            while group := self._take():
                self._write(connection, group)
        finally:
            connection.close()

    def _take(self) -> list[tuple[Operation, asyncio.Future[Any]]]:
        """What waits, at least one; empty when the store is to close."""
        first = self._queue.get()
        if first is None:
            return []
        group = [first]
        try:
            while len(group) < GROUP:
                another = self._queue.get_nowait()
                if another is None:
                    self._queue.put(None)
                    break
                group.append(another)
        except Empty:
            pass
        return group

    def _write(self, connection: Connection, group: list[tuple[Operation, asyncio.Future[Any]]]) -> None:
        began = monotonic()
        try:
            results = _transact(connection, [operation for operation, _ in group])
        except Exception as error:  # An operation of ours that fails must not end the thread: whoever asked for it is told.
            if len(group) > 1:
                # One of them is at fault, or each is too large: the others are not to suffer for it.
                for one in group:
                    self._write(connection, [one])
                return
            self._tell(_fail, group[0][1], _explained(error, self.path))
        else:
            self._tell(_deliver, [(future, result) for (_, future), result in zip(group, results, strict=True)])
        self._tell(self.book.store_s.observe, monotonic() - began)

    def _tell(self, what: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(what, *arguments)
        except RuntimeError:
            pass  # The loop has ended: nobody is left to be told.


def _deliver(results: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in results:
        if not future.done():
            future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _transact(connection: Connection, operations: list[Operation]) -> list[Any]:
    try:
        connection.execute("BEGIN")
        results = [operation(connection) for operation in operations]
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return results


def _explained(error: Exception, path: str) -> Exception:
    import sqlite3

    if not isinstance(error, sqlite3.Error):
        return error if isinstance(error, PenstockError) else CallError(500, "internal_error", f"The store failed: {type(error).__name__}.")
    return CallError(503, "not_stored", f"It could not be stored durably ({error}). Nothing was accepted; try again later.")


# --- opening


def _open(path: str) -> Connection:
    import sqlite3

    fresh = _make_file(path)
    try:
        connection = sqlite3.connect(path, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise _unusable(path, str(error)) from None
    try:
        _prepare(connection, path, fresh)
    except sqlite3.Error as error:
        connection.close()
        raise _unusable(path, str(error)) from None
    except ConfigError:
        connection.close()
        raise
    return connection


def _make_file(path: str) -> bool:
    """Make folder and file for their owner alone. Whether the file is new."""
    if path == MEMORY:
        return True
    try:
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise ConfigError(f"{path} is not a file; name one in tickets.path", key="tickets.path")
            if stat.S_IMODE(found.st_mode) & 0o077:
                os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from None
    return found.st_size == 0


def _prepare(connection: Connection, path: str, fresh: bool) -> None:
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")
    if not fresh:
        _check(connection, path)
    # These are kept: a ticket that was acknowledged is on the disk, not in its cache.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"journal_size_limit={WAL_BYTES}", "foreign_keys=OFF", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    # A write that changes something: only it shows that disk and folder take one, and only it takes the lock.
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"PRAGMA application_id={APPLICATION}")
    connection.execute(f"PRAGMA user_version={VERSION}")
    for statement in SCHEMA:
        connection.execute(statement)
    connection.execute("INSERT INTO starts (at) VALUES (strftime('%s', 'now'))")
    connection.execute("DELETE FROM starts WHERE number < (SELECT max(number) FROM starts)")
    connection.execute("COMMIT")


def _check(connection: Connection, path: str) -> None:
    application, version = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    if application != APPLICATION and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise ConfigError(f"{path} is another program's database; name a file of its own in tickets.path", key="tickets.path")
    if version > VERSION:
        raise ConfigError(f"{path} was written by a later version of penstock; use that, or another file", key="tickets.path")
    if os.path.getsize(path) <= CHECKED_BYTES:
        said = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if said != "ok":
            raise _unusable(path, f"damaged: {said}")


def _unusable(path: str, reason: str) -> ConfigError:
    fix = "make its folder writable or free space on its disk, or name another file in tickets.path"
    lower = reason.lower()
    if "locked" in lower:
        fix = "another gateway has it open: stop that one, or give this one its own file in tickets.path"
    elif any(word in lower for word in ("not a database", "malformed", "damaged")):
        fix = "move it away to start with an empty one (its tickets are lost), or restore it from a copy"
    return ConfigError(f"cannot keep tickets in {path}: {reason}; {fix}", key="tickets.path")
