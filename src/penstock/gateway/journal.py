"""Writes the journal: buffered in memory, handed to a thread about each second, split into segments of bounded size.

A full or failing disk ends the journal, not the gateway: one log line, `failed` set, and every later record is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

import msgspec

from penstock.errors import ConfigError
from penstock.events import Action, ConfigReplaced, Event
from penstock.journal import MAGIC, SUFFIX, Head, frame, without_secrets

log = logging.getLogger("penstock.gateway")

SEGMENT_BYTES = 64 << 20
EARLY_BYTES = 1 << 20
"""A buffer this large is written before its second is over."""
BUFFER_BYTES = 64 << 20
"""A disk that lets this much pile up is given up on."""


class Journal:
    """One run's journal in a folder."""

    def __init__(self, folder: Path, head: Head, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Opens the first segment. Raises ConfigError when the folder cannot be written."""
        self.failed = ""
        self._folder = folder
        self._head = msgspec.structs.replace(head, config=without_secrets(head.config))
        self._run = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{os.getpid()}"
        self._segment_bytes = segment_bytes
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._writing: asyncio.Future[None] | None = None
        self._segment = 0
        self._written = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
        except OSError as error:
            raise ConfigError(f"cannot write a journal in {folder}: {error.strerror}", key="--journal") from None

    def write(self, now: float, event: Event, actions: Sequence[Action]) -> None:
        """Remember one step of the core."""
        if self.failed:
            return
        if type(event) is ConfigReplaced:
            event = ConfigReplaced(without_secrets(event.config))
        data = frame((now, event, actions))
        self._buffer.append(data)
        self._buffered += len(data)
        if self._buffered > EARLY_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand what is buffered to a thread; called on the event loop, about each second."""
        if not self._buffer or self.failed:
            return
        if self._writing is not None:
            if self._buffered > BUFFER_BYTES:
                self._fail("the disk is slower than the traffic")
            return
        parts, self._buffer, self._buffered = self._buffer, [], 0
        self._writing = asyncio.get_running_loop().run_in_executor(None, self._append, parts)
        self._writing.add_done_callback(self._flushed)

    async def close(self) -> None:
        """Write what is left."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
            # The future's own callback has run or is about to; either way nothing else writes now.
        try:
            if not self.failed:
                self._append(self._buffer)
            self._file.close()
        except OSError as error:
            self._fail(error.strerror or str(error))
        self._buffer = []

    def _flushed(self, writing: asyncio.Future[None]) -> None:
        self._writing = None
        error = writing.exception()
        if isinstance(error, OSError):
            self._fail(error.strerror or str(error))
        elif error is not None:
            raise error

    def _fail(self, reason: str) -> None:
        self.failed = reason
        self._buffer, self._buffered = [], 0
        log.error("journal stopped: %s: %s; the gateway goes on without it", self._folder, reason)

    def _append(self, parts: list[bytes]) -> None:
        """In a thread. A segment is left when the next record would overfill it, so no record is split."""
        size, start = 0, 0
        for index, part in enumerate(parts):
            if self._written + size + len(part) > self._segment_bytes and self._written + size > 0:
                self._put(b"".join(parts[start:index]))
                self._next()
                size, start = 0, index
            size += len(part)
        self._put(b"".join(parts[start:]))

    def _next(self) -> None:
        self._file.close()
        self._segment += 1
        self._file = self._open()
        self._written = 0

    def _open(self) -> FileIO:
        path = self._folder / f"{self._run}-{self._segment:05d}{SUFFIX}"
        file = FileIO(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w")
        _write_all(file, MAGIC + frame(msgspec.structs.replace(self._head, segment=self._segment)))
        return file

    def _put(self, data: bytes) -> None:
        _write_all(self._file, data)
        self._written += len(data)


def _write_all(file: FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
