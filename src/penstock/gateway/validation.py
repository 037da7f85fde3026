"""The check of a batch's input: every line is read as the call it will be, before any of them runs."""

from __future__ import annotations

import asyncio
import time
from codecs import BOM_UTF8
from collections.abc import AsyncIterator
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from penstock.config import Config
from penstock.errors import CallError
from penstock.gateway import auth, records
from penstock.gateway.batch import ERRORS_SHOWN, Live, Problem, Problems
from penstock.gateway.job import new_id
from penstock.gateway.records import JobRow
from penstock.gateway.tickets import Origin, Tickets
from penstock.wire import batch as lines
from penstock.wire import openai

if TYPE_CHECKING:
    from sqlite3 import Connection

LINES = 50_000
"""OpenAI's own bound."""
SLICE, SLICE_BYTES = 32, 131_072
"""Lines read between two turns of the event loop: about a millisecond."""
GROUP, GROUP_BYTES = 256, 4_194_304
"""Jobs stored at once."""


class Validation:
    """One pass over a batch's file. Good lines are stored as jobs on the way, so that a large file is never held in memory."""

    def __init__(self, config: Config, tickets: Tickets, live: Live) -> None:
        self.count = 0
        self._limits, self._aliases = config.limits, config.aliases
        self._tickets, self._live = tickets, live
        self._facts = msgspec.json.encode(Origin(tenant=live.tenant, salt=auth.salt(live.tenant), max_priority=1))
        self._route = lines.ENDPOINTS[live.batch.endpoint]
        self._seen: set[bytes] = set()
        """Digests of the names of the lines so far."""
        self._problems: list[Problem] = []
        self._group: list[tuple[JobRow, bytes, bytes]] = []
        self._group_bytes = self._held = 0

    async def run(self) -> Problems | None:
        """What is wrong with the file, or None."""
        try:
            number = lines_read = bytes_read = 0
            async for data in self._lines():
                number += 1
                lines_read, bytes_read = lines_read + 1, bytes_read + len(data)
                if lines_read >= SLICE or bytes_read >= SLICE_BYTES:
                    lines_read = bytes_read = 0
                    await asyncio.sleep(0)
                if data.strip():
                    self._line(number, data)
                if len(self._problems) >= ERRORS_SHOWN or self._live.batch.status == "cancelling":
                    break
                if len(self._group) >= GROUP or self._group_bytes >= GROUP_BYTES:
                    await self._store()
            if not self.count and not self._problems:
                self._problem("empty_file", "The file has no requests.")
            await self._store()
        except CallError as error:
            self._problem(error.code, error.message, error.field)
        return Problems(self._problems) if self._problems else None

    def let_go(self) -> None:
        """The jobs are in the tickets' books, or gone."""
        self._tickets.coming -= self._held
        self._held = 0

    def _line(self, number: int, data: bytes) -> None:
        self.count += 1
        if self.count > LINES:
            raise CallError(400, "too_many_tasks", f"The file has more than {LINES} requests.")
        try:
            line = lines.read(data, self._live.batch.endpoint)
            name = blake2b(line.custom_id.encode(), digest_size=16).digest()
            if name in self._seen:
                raise CallError(400, "duplicate_custom_id", "Another line has the same 'custom_id'.", field="custom_id")
            self._seen.add(name)
            ask = openai.read(self._route, line.body, self._limits, 0, self._aliases)
            if not self._tickets.core.serves(ask.model):
                raise CallError(404, "model_not_found", f"The model {ask.asked_model!r} does not exist here.", field="model")
        except CallError as error:
            self._problem(error.code, error.message, error.field, number)
            return
        if not self._problems:
            self._hold(line, ask)

    def _hold(self, line: lines.Line, ask: openai.Call) -> None:
        live, now = self._live, time.time()
        body = openai.whole(line.body) if ask.stream else line.body
        id = new_id("job_")
        row = JobRow(
            id, live.tenant, live.batch.id, line.custom_id, "queued", str(self._route), ask.model, "", id, now, float(live.batch.expires_at)
        )
        self._group.append((row, self._facts, body))
        self._group_bytes += len(body)

    async def _store(self) -> None:
        group, self._group, self._group_bytes = self._group, [], 0
        if group and not self._problems:
            self._tickets.check_room(len(group))
            self._held += len(group)
            self._tickets.coming += len(group)
            await self._tickets.store.run(partial(self._insert, group=group))

    def _insert(self, connection: Connection, group: list[tuple[JobRow, bytes, bytes]]) -> None:
        self._tickets.store.make_room(connection)
        records.insert(connection, group)

    def _problem(self, code: str, message: str, field: str | None = None, line: int | None = None) -> None:
        if len(self._problems) < ERRORS_SHOWN:
            self._problems.append(Problem(code, message, field, line))

    async def _lines(self) -> AsyncIterator[bytes]:
        rest, number = [b""], 0
        id = self._live.batch.input_file_id
        while (found := await self._tickets.store.run(partial(records.piece, id=id, after=number))) is not None:
            begins, (number, data) = number == 0, found
            if begins:
                # Editors on Windows begin a file with the byte order mark.
                data = data.removeprefix(BOM_UTF8)
            first, *others = data.split(b"\n")
            rest.append(first)
            if sum(map(len, rest)) > self._limits.body_bytes + 65_536:
                raise CallError(400, "line_too_long", f"A line is longer than a call may be, {self._limits.body_bytes} bytes.")
            for line in others:
                yield b"".join(rest)
                rest = [line]
        yield b"".join(rest)
