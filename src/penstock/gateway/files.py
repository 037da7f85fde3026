"""The pages of files: what batches read, and what they wrote. Kept in the store in pieces, so that none is ever held whole."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec

from penstock.config import Config
from penstock.errors import CallError
from penstock.gateway import records
from penstock.gateway.auth import Tenant
from penstock.gateway.job import new_id
from penstock.gateway.records import FileRow
from penstock.gateway.store import Store
from penstock.http1 import Exchange

if TYPE_CHECKING:
    from sqlite3 import Connection

PIECE_BYTES = 1_048_576
UPLOADS = 8
"""So many of the largest bodies may be in memory on their way into the store, whether their callers are still there or not."""
PAGE, PAGE_MOST = 100, 1_000
"""Files and batches listed at a time, by default and at most."""
PURPOSE = "batch"
EXPIRES_S = 3_600, 2_592_000
"""What `expires_after` may ask for: OpenAI's own bounds."""

Answer = tuple[int, bytes, bytes]


class Files:
    def __init__(self, config: Config, store: Store) -> None:
        self.store = store
        self.keep_s = config.tickets.keep_s
        self.coming_bytes = 0
        """Of bodies with files that are on their way into the store."""
        self._most_bytes = config.tickets.file_bytes
        self._room_bytes = UPLOADS * max(config.limits.body_bytes, config.tickets.file_bytes)

    def check_room(self, more: int) -> None:
        if self.coming_bytes + more > self._room_bytes:
            message = f"{self.coming_bytes >> 20} MiB of files are on their way to the disk already; try again later."
            raise CallError(503, "too_many_uploads", message)

    async def upload(self, exchange: Exchange, head: bytes, tenant: Tenant, id: str) -> Answer | None:
        size = len(exchange.body)
        self.check_room(size)
        self.coming_bytes += size
        try:
            return await self._upload(exchange, tenant)
        finally:
            self.coming_bytes -= size

    async def _upload(self, exchange: Exchange, tenant: Tenant) -> Answer | None:
        from penstock.gateway.form import Form  # Its parser takes longer to load than most gateways ever need it.

        body, exchange.body = exchange.body, b""
        form = Form()
        await form.read(exchange.headers.get("content-type", ""), body)
        del body
        purpose = form.fields.get("purpose")
        if purpose != PURPOSE:
            raise CallError(400, "invalid_value", f"'purpose' must be '{PURPOSE}': only files of batches are kept.", field="purpose")
        if form.name is None:
            message = "'file' is missing: it must be a part of the form with a filename, the JSONL file."
            raise CallError(400, "missing_required_parameter", message, field="file")
        size = sum(map(len, form.pieces))
        if size > self._most_bytes:
            raise CallError(413, "file_too_large", f"The file is larger than {self._most_bytes} bytes (tickets.file_bytes).", field="file")
        if not size:
            raise CallError(400, "empty_file", "The file is empty.", field="file")
        row = await self.begin(tenant.name, form.name, PURPOSE, _kept_s(form.fields))
        try:
            for piece in _pieces(form.pieces):
                if exchange.closed:
                    # Its caller left, and will never know its id.
                    await self.store.run(partial(records.drop_file, id=row.id))
                    return None
                await self.store.run(partial(self._append, id=row.id, data=piece))
            await self.store.run(partial(records.complete_file, id=row.id))
        except CallError:
            await self.store.run(partial(records.drop_file, id=row.id))
            raise
        row.bytes = size
        return 200, b"", msgspec.json.encode(_shown(row))

    async def begin(self, tenant: str, name: str, purpose: str, keep_s: float = inf) -> FileRow:
        now = time.time()
        row = FileRow(new_id("file-"), tenant, name, purpose, 0, now, now + min(keep_s, self.keep_s))
        await self.store.run(partial(records.begin_file, row=row))
        return row

    def _append(self, connection: Connection, id: str, data: bytes) -> None:
        self.store.make_room(connection)
        records.append(connection, id, data)

    async def index(self, exchange: Exchange, head: bytes, tenant: Tenant, id: str) -> Answer:
        query = parameters(exchange.query)
        limit = limit_of(query)
        if query.get("order", "desc") not in ("asc", "desc"):
            raise CallError(400, "invalid_value", "'order' must be asc or desc.", field="order")
        rows = await self.store.run(
            partial(
                records.list_files,
                tenant=tenant.name,
                purpose=query.get("purpose"),
                after=query.get("after"),
                limit=limit,
                rising=query.get("order") == "asc",
            )
        )
        if rows is None:
            raise no_such_cursor()
        return 200, b"", page([_shown(row) for row in rows], limit)

    async def show(self, exchange: Exchange, head: bytes, tenant: Tenant, id: str) -> Answer:
        return 200, b"", msgspec.json.encode(_shown(await self.find(tenant.name, id)))

    async def delete(self, exchange: Exchange, head: bytes, tenant: Tenant, id: str) -> Answer:
        await self.find(tenant.name, id)
        await self.store.run(partial(records.drop_file, id=id))
        return 200, b"", msgspec.json.encode({"id": id, "object": "file", "deleted": True})

    async def content(self, exchange: Exchange, head: bytes, tenant: Tenant, id: str) -> None:
        """A piece at a time, no faster than the caller reads."""
        row = await self.find(tenant.name, id)
        ready = asyncio.Event()
        exchange.on_resume = exchange.on_cancel = ready.set
        exchange.start(200, b"content-type: application/octet-stream\r\n" + head, row.bytes)
        number = 0
        while exchange.method != "HEAD" and (found := await self.store.run(partial(records.piece, id=id, after=number))) is not None:
            number, data = found
            exchange.send(data)
            if exchange.paused and not exchange.closed:
                ready.clear()
                await ready.wait()
            if exchange.closed:
                return
        exchange.end()

    async def find(self, tenant: str, id: str) -> FileRow:
        """Raises CallError 404: another tenant's file is as if it were not there."""
        row = await self.store.run(partial(records.find_file, id=id, tenant=tenant))
        if row is None:
            raise CallError(404, "not_found", f"There is no file {id[:80]!r}.")
        return row


def _pieces(parts: Iterable[bytes]) -> Iterable[bytes]:
    """The same bytes in pieces of about PIECE_BYTES."""
    kept: list[bytes] = []
    size = 0
    for part in parts:
        kept.append(part)
        size += len(part)
        if size >= PIECE_BYTES:
            yield b"".join(kept)
            kept, size = [], 0
    if kept:
        yield b"".join(kept)


def _shown(row: FileRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "file",
        "bytes": row.bytes,
        "created_at": int(row.created_at),
        "expires_at": int(row.expires_at),
        "filename": row.name,
        "purpose": row.purpose,
        "status": "processed",
        "status_details": None,
    }


def _kept_s(fields: dict[str, str]) -> float:
    """What a form asks for with OpenAI's `expires_after`. Raises CallError."""
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return inf
    few, most = EXPIRES_S
    if anchor != "created_at" or seconds is None or not re.fullmatch("[0-9]{1,8}", seconds) or not few <= int(seconds) <= most:
        message = f"'expires_after' needs the anchor created_at, and seconds from {few} to {most}."
        raise CallError(400, "invalid_value", message, field="expires_after")
    return float(seconds)


def no_such_cursor() -> CallError:
    """An empty page would be taken for the end of the list."""
    return CallError(400, "invalid_value", "'after' must be the id of one that is listed; it may have been deleted.", field="after")


def parameters(query: str) -> dict[str, str]:
    try:
        return {name: values[-1] for name, values in parse_qs(query, max_num_fields=16).items()} if query else {}
    except ValueError:
        raise CallError(400, "invalid_value", "The query has too many fields.") from None


def limit_of(query: dict[str, str]) -> int:
    text = query.get("limit", str(PAGE))
    if not re.fullmatch("0*[1-9][0-9]*", text):
        raise CallError(400, "invalid_value", "'limit' must be a whole number, 1 or more.", field="limit")
    return min(int(text), PAGE_MOST) if len(text) < 10 else PAGE_MOST


def page(shown: list[dict[str, Any]], limit: int) -> bytes:
    """A page of a list, from up to one row more than it shows."""
    data, more = shown[:limit], len(shown) > limit
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return msgspec.json.encode({"object": "list", "data": data, **ends, "has_more": more})
