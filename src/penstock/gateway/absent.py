"""An exchange without a caller: takes an answer as `http1.Exchange` does, and keeps it for whoever asks later."""

from __future__ import annotations

from collections.abc import Callable, Mapping

CUT = 0
"""Status of an answer that broke off."""
TOO_LARGE = -1


class Absent:
    """`done(status, body)` is called once, with the whole answer, with CUT, or with TOO_LARGE beyond `most_bytes`."""

    __slots__ = (
        "_done", "_most_bytes", "_parts", "_size", "_status", "body", "closed", "headers", "on_cancel", "on_pause", "on_resume", "paused",
        "started",
    )  # fmt: skip

    def __init__(self, body: bytes, most_bytes: int, done: Callable[[int, bytes], None]) -> None:
        self.body = body
        self.headers: Mapping[str, str] = {}
        self.paused = self.started = self.closed = False
        self.on_cancel: Callable[[], None] | None = None
        self.on_pause: Callable[[], None] | None = None
        self.on_resume: Callable[[], None] | None = None
        self._done, self._most_bytes = done, most_bytes
        self._status = CUT
        self._parts: list[bytes] = []
        self._size = 0

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        if self.closed or self.started:
            return
        self.started = True
        self._status = status
        self.end(body)

    def start(self, status: int, headers: bytes, length: int | None = None) -> None:
        if self.closed or self.started:
            return
        self.started = True
        self._status = status

    def send(self, data: bytes) -> None:
        if self.closed:
            return
        self._size += len(data)
        if self._size <= self._most_bytes:
            self._parts.append(data)
        else:
            # What is too large is read to its end and dropped: the engine has done the work already.
            self._parts.clear()

    def end(self, data: bytes = b"") -> None:
        if self.closed:
            return
        self.send(data)
        self._close(self._status if self._size <= self._most_bytes else TOO_LARGE, b"".join(self._parts))

    def abort(self) -> None:
        if not self.closed:
            self._close(CUT, b"")

    def _close(self, status: int, body: bytes) -> None:
        self.closed = True
        self._parts = []
        self._done(status, body)
