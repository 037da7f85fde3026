"""OpenAI's batches over the store of jobs: each line of an input file is a job of the lowest priority.

    validating -> in_progress -> finalizing -> completed | expired
        |   \\          \\
        |    ----------- cancelling -> (finalizing) -> cancelled
        -> failed

Every step is a transaction that can be repeated: a batch goes on after a restart where it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.config import Config
from penstock.errors import CallError
from penstock.gateway import records
from penstock.gateway.auth import Tenant
from penstock.gateway.batch import METADATA, METADATA_KEY, METADATA_VALUE, WINDOWS, Batch, Live, Wanted
from penstock.gateway.files import PURPOSE, Answer, Files, limit_of, no_such_cursor, page, parameters
from penstock.gateway.job import Job, job_of, new_id
from penstock.gateway.records import FileRow, JobRow
from penstock.gateway.tickets import Tickets
from penstock.gateway.validation import Validation
from penstock.http1 import Exchange
from penstock.wire import batch as lines

if TYPE_CHECKING:
    from sqlite3 import Connection

VALIDATED = 4
"""Batches whose lines are read at the same time: what is kept of a file meanwhile may be some megabytes."""
LIVE = 1_000
"""Batches that have not ended."""
SLICE = 256
"""Jobs handled between two turns of the event loop."""

_BATCH = msgspec.json.Decoder(Batch)
_WANTED = msgspec.json.Decoder(Wanted)


class Batches:
    def __init__(self, config: Config, tickets: Tickets, files: Files) -> None:
        self.config, self.tickets, self.files, self.store = config, tickets, files, tickets.store
        self.live: dict[str, Live] = {}
        tickets.on_end, tickets.on_sweep = self._ended, self._sweep
        self._coming = 0
        """Batches on their way into the store."""
        self._turns = asyncio.Semaphore(VALIDATED)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    async def start(self) -> None:
        """Read what is live; `resume` goes on with it once its jobs are taken up."""
        await self.store.run(records.drop_torn_files)
        for tenant, shown in await self.store.run(records.live_batches):
            batch = _BATCH.decode(shown)
            live = self.live[batch.id] = Live(batch, tenant, output_id=batch.output_file_id or "", error_id=batch.error_file_id or "")
            if batch.status in ("in_progress", "cancelling"):
                counted = await self.store.run(partial(records.counts, batch=batch.id))
                batch.request_counts.completed = sum(count for (status, good), count in counted.items() if status == "completed")
                batch.request_counts.failed = sum(count for (status, _), count in counted.items() if status == "failed")
                live.left = sum(count for (status, _), count in counted.items() if status == "queued")

    def resume(self) -> None:
        for live in list(self.live.values()):
            if live.batch.status == "validating":
                self._spawn(self._validate(live))
            elif live.batch.in_progress_at is None:
                self._spawn(self._end(live, "cancelled"))
            elif live.batch.status == "cancelling":
                self._spawn(self._cancel(live, "cancelled"))
            elif not live.left:
                self._spawn(self._finalize(live))

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # --- pages

    async def create(self, exchange: Exchange, head: bytes, tenant: Tenant, id: str) -> Answer:
        wanted = _checked(exchange.body)
        if len(self.live) + self._coming >= LIVE:
            raise CallError(503, "too_many_batches", f"{LIVE} batches have not ended; try again when some have.")
        self._coming += 1
        try:
            live = await self._begin(wanted, tenant)
        finally:
            self._coming -= 1
        self._spawn(self._validate(live))
        if exchange.closed:
            # Its caller left before the id was told, and will make another.
            await self.cancel(exchange, head, tenant, live.batch.id)
        return 200, b"", msgspec.json.encode(live.batch)

    async def _begin(self, wanted: Wanted, tenant: Tenant) -> Live:
        file = await self.files.find(tenant.name, wanted.input_file_id)
        if file.purpose != PURPOSE:
            message = f"'input_file_id' must be a file of the purpose {PURPOSE!r}; this one is of {file.purpose!r}."
            raise CallError(400, "invalid_value", message, field="input_file_id")
        now = int(time.time())
        batch = Batch(
            id=new_id("batch_"),
            endpoint=wanted.endpoint,
            input_file_id=file.id,
            completion_window=wanted.completion_window,
            created_at=now,
            expires_at=now + WINDOWS[wanted.completion_window],
            metadata=wanted.metadata,
        )
        live = Live(batch, tenant.name)
        await self.store.run(partial(self._begun, live=live))
        self.live[batch.id] = live
        return live

    def _begun(self, connection: Connection, live: Live) -> None:
        self.store.make_room(connection)
        self._saved(connection, live, True)

    async def show(self, exchange: Exchange, head: bytes, tenant: Tenant, id: str) -> Answer:
        return 200, b"", msgspec.json.encode(await self._find(tenant, id))

    async def index(self, exchange: Exchange, head: bytes, tenant: Tenant, id: str) -> Answer:
        query = parameters(exchange.query)
        limit = limit_of(query)
        rows = await self.store.run(partial(records.list_batches, tenant=tenant.name, after=query.get("after"), limit=limit))
        if rows is None:
            raise no_such_cursor()
        shown = [self._current(_BATCH.decode(row)) for row in rows]
        return 200, b"", page([msgspec.to_builtins(batch) for batch in shown], limit)

    async def cancel(self, exchange: Exchange, head: bytes, tenant: Tenant, id: str) -> Answer:
        batch = await self._find(tenant, id)
        live = self.live.get(id)
        if live is not None and batch.status in ("validating", "in_progress"):
            before, batch.status, batch.cancelling_at = batch.status, "cancelling", int(time.time())
            try:
                await self._save(live)
            except CallError:
                batch.status, batch.cancelling_at = before, None
                raise
            if before == "in_progress":
                self._spawn(self._cancel(live, "cancelled"))
        elif batch.status not in ("cancelling", "cancelled"):
            raise CallError(400, "batch_not_cancellable", f"The batch is {batch.status}: it cannot be cancelled any more.")
        return 200, b"", msgspec.json.encode(batch)

    async def _find(self, tenant: Tenant, id: str) -> Batch:
        row = await self.store.run(partial(records.find_batch, id=id, tenant=tenant.name))
        if row is None:
            raise CallError(404, "not_found", f"There is no batch {id[:80]!r}.")
        return self._current(_BATCH.decode(row))

    def _current(self, batch: Batch) -> Batch:
        """The process knows more of a live batch than the store."""
        live = self.live.get(batch.id)
        return batch if live is None else live.batch

    async def _save(self, live: Live, live_on: bool = True) -> None:
        await self.store.run(partial(self._saved, live=live, live_on=live_on))

    def _saved(self, connection: Connection, live: Live, live_on: bool) -> None:
        batch = live.batch
        expires_at = time.time() + self.files.keep_s
        records.save_batch(connection, batch.id, live.tenant, live_on, expires_at, msgspec.json.encode(batch))

    # --- from the file to jobs

    async def _validate(self, live: Live) -> None:
        async with self._turns:
            await self._read(live)

    async def _read(self, live: Live) -> None:
        batch = live.batch
        validation = Validation(self.config, self.tickets, live)
        try:
            await self.tickets.persist(partial(records.drop_jobs, batch=batch.id))
            problems = await validation.run()
            if batch.status == "cancelling":
                await self._end(live, "cancelled")
            elif problems is not None:
                batch.errors = problems
                await self._end(live, "failed")
            else:
                batch.request_counts.total = live.left = validation.count
                batch.status, batch.in_progress_at = "in_progress", int(time.time())
                rows = await self.tickets.persist(partial(self._release, live=live))
                await self._add(live, rows)
        finally:
            validation.let_go()

    async def _add(self, live: Live, rows: list[JobRow]) -> None:
        for number, row in enumerate(rows):
            self.tickets.add(job_of(row))
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        if live.batch.status == "cancelling":
            await self._cancel(live, "cancelled")

    def _release(self, connection: Connection, live: Live) -> list[JobRow]:
        rows = records.of_batch(connection, live.batch.id)
        self._saved(connection, live, True)
        return rows

    # --- from jobs to the files

    def _ended(self, job: Job, status: str, code: int | None) -> None:
        live = self.live.get(job.batch or "")
        if live is None:
            return
        live.left -= 1
        counts = live.batch.request_counts
        counts.completed += status == "completed"
        counts.failed += status == "failed"
        if not live.left:
            self._spawn(self._finalize(live))

    async def _cancel(self, live: Live, status: str) -> None:
        await self.tickets.end_batch(live.batch.id, status)
        if not live.left:
            await self._finalize(live)

    def _sweep(self, now: float) -> None:
        for live in list(self.live.values()):
            if live.batch.status == "in_progress" and live.left and live.batch.expires_at < now:
                self._spawn(self._cancel(live, "expired"))

    async def _finalize(self, live: Live) -> None:
        if live.finalizing:
            return
        live.finalizing = True
        batch = live.batch
        if batch.status == "in_progress":
            batch.status = "finalizing"
        batch.finalizing_at = batch.finalizing_at or int(time.time())
        live.output_id, live.error_id = live.output_id or new_id("file-"), live.error_id or new_id("file-")
        await self.tickets.persist(partial(self._saved, live=live, live_on=True))
        while await self.tickets.persist(partial(self._move, live=live)):
            await asyncio.sleep(0)
        counts = batch.request_counts
        whole = counts.completed + counts.failed >= counts.total
        await self._end(live, "cancelled" if batch.cancelling_at else "completed" if whole else "expired")

    def _move(self, connection: Connection, live: Live) -> bool:
        """Some ended jobs become lines of the output and error files, in one transaction; False when there are none left."""
        batch = live.batch
        done = records.ended(connection, batch.id)
        if not done:
            return False
        output: list[bytes] = []
        errors: list[bytes] = []
        for row, result in done:
            (output if row.status == "completed" else errors).append(_line(row, result))
        if output:
            batch.output_file_id = live.output_id
            self._write(connection, live, live.output_id, "output", b"".join(output))
        if errors:
            batch.error_file_id = live.error_id
            self._write(connection, live, live.error_id, "error", b"".join(errors))
        records.drop(connection, [row.id for row, _ in done])
        self._saved(connection, live, True)
        return True

    def _write(self, connection: Connection, live: Live, id: str, kind: str, data: bytes) -> None:
        now = time.time()
        name = f"{live.batch.id}_{kind}.jsonl"
        records.begin_file(connection, FileRow(id, live.tenant, name, "batch_output", 0, now, now + self.files.keep_s))
        records.append(connection, id, data)

    async def _end(self, live: Live, status: str) -> None:
        batch = live.batch
        # The end is shown once it is on the disk.
        ended = msgspec.structs.replace(batch, status=status)
        setattr(ended, f"{status}_at", int(time.time()))
        await self.tickets.persist(partial(self._ended_for_good, live=Live(ended, live.tenant)))
        live.batch = ended
        self.live.pop(batch.id, None)

    def _ended_for_good(self, connection: Connection, live: Live) -> None:
        records.drop_jobs(connection, live.batch.id)
        for id in (live.batch.output_file_id, live.batch.error_file_id):
            if id is not None:
                records.complete_file(connection, id)
        self._saved(connection, live, False)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler({"message": "a batch failed", "exception": error, "task": task})


_REASONS = {
    "cancelled": ("batch_cancelled", "The batch was cancelled before this request was answered."),
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
}


def _line(row: JobRow, result: bytes | None) -> bytes:
    custom_id, id = row.custom_id or "", f"batch_req_{row.id.partition('_')[2]}"
    if row.code is not None:
        return lines.answered(id, custom_id, row.request_id, row.code, result or b"")
    return lines.unanswered(id, custom_id, *_REASONS.get(row.status, ("failed", "The engines failed it.")))


def _checked(body: bytes) -> Wanted:
    try:
        wanted = _WANTED.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise CallError(400, "invalid_json", "The body must be a JSON object.") from None
    if not isinstance(wanted.input_file_id, str):
        raise CallError(400, "missing_required_parameter", "'input_file_id' must be the id of a file.", field="input_file_id")
    if wanted.endpoint not in lines.ENDPOINTS:
        raise CallError(400, "invalid_value", f"'endpoint' must be one of {', '.join(lines.ENDPOINTS)}.", field="endpoint")
    if wanted.completion_window not in WINDOWS:
        raise CallError(400, "invalid_value", "'completion_window' must be '24h'.", field="completion_window")
    metadata = wanted.metadata
    if metadata is not None and not _is_metadata(metadata):
        message = f"'metadata' must be at most {METADATA} texts of at most {METADATA_VALUE} characters, by names of at most {METADATA_KEY}."
        raise CallError(400, "invalid_value", message, field="metadata")
    return wanted


def _is_metadata(metadata: object) -> bool:
    return (
        isinstance(metadata, dict)
        and len(metadata) <= METADATA
        and all(isinstance(value, str) and len(key) <= METADATA_KEY and len(value) <= METADATA_VALUE for key, value in metadata.items())
    )
