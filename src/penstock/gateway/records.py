"""The store's tables and every statement over them. A function here runs inside a transaction of `store`.

A job ends once: `end` changes only a row that has not ended, and says whether it did.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from sqlite3 import Connection

VERSION = 1
MOVED_BYTES = 4_194_304
FORGOTTEN, FILES_FORGOTTEN = 500, 4

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS starts (number INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL)",
    """CREATE TABLE IF NOT EXISTS jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, batch TEXT, custom_id TEXT,
        status TEXT NOT NULL, route TEXT NOT NULL, model TEXT NOT NULL, task TEXT NOT NULL, request_id TEXT NOT NULL,
        created_at REAL NOT NULL, expires_at REAL NOT NULL, ended_at REAL, code INTEGER, facts BLOB, body BLOB, result BLOB)""",
    "CREATE INDEX IF NOT EXISTS jobs_by_end ON jobs (expires_at) WHERE batch IS NULL",
    "CREATE INDEX IF NOT EXISTS jobs_left ON jobs (number) WHERE status = 'queued'",
    "CREATE INDEX IF NOT EXISTS jobs_by_batch ON jobs (batch, number) WHERE batch IS NOT NULL",
    """CREATE TABLE IF NOT EXISTS files (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, name TEXT NOT NULL,
        purpose TEXT NOT NULL, bytes INTEGER NOT NULL, created_at REAL NOT NULL, expires_at REAL NOT NULL, whole INTEGER NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS pieces (
        file TEXT NOT NULL, number INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (file, number))""",
    """CREATE TABLE IF NOT EXISTS batches (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, live INTEGER NOT NULL,
        expires_at REAL NOT NULL, shown BLOB NOT NULL)""",
)


class JobRow(msgspec.Struct, gc=False):
    """A job as it is stored, without its body and its result."""

    id: str
    tenant: str
    batch: str | None
    custom_id: str | None
    status: str
    """`queued`, or how it ended. Those of a batch that is being checked are queued and not handed out."""
    route: str
    model: str
    task: str
    request_id: str
    created_at: float
    expires_at: float
    ended_at: float | None = None
    code: int | None = None


class FileRow(msgspec.Struct, gc=False):
    id: str
    tenant: str
    name: str
    purpose: str
    bytes: int
    created_at: float
    expires_at: float
    whole: int = 0


_JOB = ", ".join(JobRow.__struct_fields__)
_FILE = ", ".join(FileRow.__struct_fields__)

# --- jobs


def insert(connection: Connection, jobs: Iterable[tuple[JobRow, bytes, bytes]]) -> None:
    """Each with its facts and its body."""
    fields = len(JobRow.__struct_fields__) + 2
    connection.executemany(
        f"INSERT INTO jobs ({_JOB}, facts, body) VALUES ({', '.join('?' * fields)})",
        [(*msgspec.structs.astuple(row), facts, body) for row, facts, body in jobs],
    )


def left(connection: Connection) -> list[JobRow]:
    """The jobs that have not ended, in their order, but those of batches that have not begun."""
    checked = "SELECT id FROM batches WHERE live = 1 AND json_extract(shown, '$.in_progress_at') IS NULL"
    rows = connection.execute(
        f"SELECT {_JOB} FROM jobs WHERE status = 'queued' AND (batch IS NULL OR batch NOT IN ({checked})) ORDER BY number"
    )
    return [JobRow(*row) for row in rows]


def find(connection: Connection, id: str, tenant: str) -> tuple[JobRow, bytes | None] | None:
    """A tenant's own job, and its result."""
    row = connection.execute(f"SELECT {_JOB}, result FROM jobs WHERE id = ? AND tenant = ? AND batch IS NULL", (id, tenant)).fetchone()
    return None if row is None else (JobRow(*row[:-1]), row[-1])


def work(connection: Connection, id: str) -> tuple[bytes, bytes] | None:
    """Facts and body of a job that has not ended."""
    row: tuple[bytes, bytes] | None = connection.execute(
        "SELECT facts, body FROM jobs WHERE id = ? AND status = 'queued'", (id,)
    ).fetchone()
    return row


def end(
    connection: Connection,
    id: str,
    status: str,
    task: str,
    at: float,
    expires_at: float,
    code: int | None = None,
    result: bytes | None = None,
) -> bool:
    """Record how a job ended; False if it had ended already. The prompt, and what its head said, go with it."""
    changed = connection.execute(
        "UPDATE jobs SET status = ?, task = ?, ended_at = ?, expires_at = ?, code = ?, result = ?, body = NULL, facts = NULL"
        " WHERE id = ? AND status = 'queued'",
        (status, task, at, expires_at, code, result, id),
    )
    return changed.rowcount == 1


def end_batch(connection: Connection, batch: str, status: str, at: float, kept: Sequence[str]) -> list[str]:
    """End a batch's jobs but those `kept`, which are running; the ids of those that ended by it."""
    rows = connection.execute("SELECT id FROM jobs WHERE batch = ? AND status = 'queued' ORDER BY number", (batch,)).fetchall()
    ids = sorted({id for (id,) in rows} - set(kept))
    connection.executemany(
        "UPDATE jobs SET status = ?, ended_at = ?, body = NULL, facts = NULL WHERE id = ?", [(status, at, id) for id in ids]
    )
    return ids


def forget(connection: Connection, now: float) -> bool:
    """Delete ended tickets, files and batches whose time is over: some of them, so that nobody waits for long behind it.

    Whether there may be more.
    """
    some = "SELECT number FROM jobs WHERE batch IS NULL AND expires_at < ? AND status <> 'queued' LIMIT ?"
    gone = connection.execute(f"DELETE FROM jobs WHERE number IN ({some})", (now, FORGOTTEN)).rowcount
    used = "SELECT json_extract(shown, '$.input_file_id') FROM batches WHERE live = 1"
    files = connection.execute(
        f"SELECT id FROM files WHERE expires_at < ? AND whole = 1 AND id NOT IN ({used}) LIMIT ?", (now, FILES_FORGOTTEN)
    )
    ids = [id for (id,) in files.fetchall()]
    for id in ids:
        drop_file(connection, id)
    connection.execute("DELETE FROM batches WHERE live = 0 AND expires_at < ?", (now,))
    return gone == FORGOTTEN or len(ids) == FILES_FORGOTTEN


# --- files


def begin_file(connection: Connection, row: FileRow) -> None:
    connection.execute(
        f"INSERT OR IGNORE INTO files ({_FILE}) VALUES ({', '.join('?' * len(FileRow.__struct_fields__))})", msgspec.structs.astuple(row)
    )


def append(connection: Connection, id: str, data: bytes) -> None:
    connection.execute(
        "INSERT INTO pieces (file, number, data) SELECT ?, coalesce(max(number), 0) + 1, ? FROM pieces WHERE file = ?", (id, data, id)
    )
    connection.execute("UPDATE files SET bytes = bytes + ? WHERE id = ?", (len(data), id))


def complete_file(connection: Connection, id: str) -> None:
    connection.execute("UPDATE files SET whole = 1 WHERE id = ?", (id,))


def find_file(connection: Connection, id: str, tenant: str) -> FileRow | None:
    row = connection.execute(f"SELECT {_FILE} FROM files WHERE id = ? AND tenant = ? AND whole = 1", (id, tenant)).fetchone()
    return None if row is None else FileRow(*row)


def piece(connection: Connection, id: str, after: int) -> tuple[int, bytes] | None:
    """The next piece of a file, with its number."""
    row: tuple[int, bytes] | None = connection.execute(
        "SELECT number, data FROM pieces WHERE file = ? AND number > ? ORDER BY number LIMIT 1", (id, after)
    ).fetchone()
    return row


def list_files(
    connection: Connection, tenant: str, purpose: str | None, after: str | None, limit: int, rising: bool
) -> list[FileRow] | None:
    """A page of a tenant's files, and one more if there are more. None: there is no `after`."""
    way, order = (">", "ASC") if rising else ("<", "DESC")
    values: list[str | int] = [tenant]
    place = kind = ""
    if after is not None:
        number = _number(connection, "files", after, tenant)
        if number is None:
            return None
        place = f"AND number {way} ?"
        values.append(number)
    if purpose is not None:
        kind = "AND purpose = ?"
        values.append(purpose)
    values.append(limit + 1)
    rows = connection.execute(
        f"SELECT {_FILE} FROM files WHERE tenant = ? AND whole = 1 {place} {kind} ORDER BY number {order} LIMIT ?", values
    )
    return [FileRow(*row) for row in rows]


def drop_file(connection: Connection, id: str) -> None:
    connection.execute("DELETE FROM pieces WHERE file = ?", (id,))
    connection.execute("DELETE FROM files WHERE id = ?", (id,))


def drop_torn_files(connection: Connection) -> None:
    """What was being sent when the process ended; a batch's own files are finished by it."""
    ids = (f"SELECT json_extract(shown, '$.{kind}_file_id') AS id FROM batches WHERE live = 1" for kind in ("output", "error"))
    owned = f"SELECT id FROM ({' UNION '.join(ids)}) WHERE id IS NOT NULL"
    for (id,) in connection.execute(f"SELECT id FROM files WHERE whole = 0 AND id NOT IN ({owned})").fetchall():
        drop_file(connection, id)


# --- batches


def save_batch(connection: Connection, id: str, tenant: str, live: bool, expires_at: float, shown: bytes) -> None:
    connection.execute(
        "INSERT INTO batches (id, tenant, live, expires_at, shown) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET live = excluded.live, expires_at = excluded.expires_at, shown = excluded.shown",
        (id, tenant, int(live), expires_at, shown.decode()),
    )


def find_batch(connection: Connection, id: str, tenant: str) -> bytes | None:
    row = connection.execute("SELECT shown FROM batches WHERE id = ? AND tenant = ?", (id, tenant)).fetchone()
    return None if row is None else row[0].encode()


def live_batches(connection: Connection) -> list[tuple[str, bytes]]:
    """Tenant and batch, in their order."""
    return [
        (tenant, shown.encode()) for tenant, shown in connection.execute("SELECT tenant, shown FROM batches WHERE live = 1 ORDER BY number")
    ]


def list_batches(connection: Connection, tenant: str, after: str | None, limit: int) -> list[bytes] | None:
    """A page of a tenant's batches, latest first, and one more if there are more. None: there is no `after`."""
    values: list[str | int] = [tenant]
    place = ""
    if after is not None:
        number = _number(connection, "batches", after, tenant)
        if number is None:
            return None
        place = "AND number < ?"
        values.append(number)
    values.append(limit + 1)
    rows = connection.execute(f"SELECT shown FROM batches WHERE tenant = ? {place} ORDER BY number DESC LIMIT ?", values)
    return [shown.encode() for (shown,) in rows]


def _number(connection: Connection, table: str, id: str, tenant: str) -> int | None:
    """The place of a tenant's row in its table."""
    row: tuple[int] | None = connection.execute(f"SELECT number FROM {table} WHERE id = ? AND tenant = ?", (id, tenant)).fetchone()
    return None if row is None else row[0]


def of_batch(connection: Connection, batch: str) -> list[JobRow]:
    """All jobs of a batch, in their order."""
    return [JobRow(*row) for row in connection.execute(f"SELECT {_JOB} FROM jobs WHERE batch = ? ORDER BY number", (batch,))]


def drop_jobs(connection: Connection, batch: str) -> None:
    connection.execute("DELETE FROM jobs WHERE batch = ?", (batch,))


def counts(connection: Connection, batch: str) -> dict[tuple[str, bool], int]:
    """Jobs of a batch by status, and whether the answer was a good one."""
    rows = connection.execute(
        "SELECT status, coalesce(code, 0) BETWEEN 200 AND 399, count(*) FROM jobs WHERE batch = ? GROUP BY 1, 2", (batch,)
    )
    return {(status, bool(good)): count for status, good, count in rows}


def ended(connection: Connection, batch: str) -> list[tuple[JobRow, bytes | None]]:
    """The first jobs of a batch that have ended and have not been written out: some hundreds, or some megabytes."""
    rows = connection.execute(f"SELECT {_JOB}, result FROM jobs WHERE batch = ? AND status <> 'queued' ORDER BY number LIMIT 256", (batch,))
    found: list[tuple[JobRow, bytes | None]] = []
    size = 0
    for row in rows:
        found.append((JobRow(*row[:-1]), row[-1]))
        size += len(row[-1] or b"")
        if size > MOVED_BYTES:
            break
    rows.close()
    return found


def drop(connection: Connection, ids: Sequence[str]) -> None:
    connection.executemany("DELETE FROM jobs WHERE id = ?", [(id,) for id in ids])
