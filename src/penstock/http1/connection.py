"""One caller's connection: bytes in, exchanges out, one after the other.

IDLE -> HEAD -> BODY -> ANSWER -> IDLE ...
HELD: the caller has yet to read an answer, before that its next request is not looked at.
LINGER: done; we read and drop until the caller closes, because closing on unread bytes would reset the answer away.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from penstock.errors import CallError
from penstock.http1 import head as heads
from penstock.http1 import sockets
from penstock.http1.chunked import Chunks
from penstock.http1.exchange import Exchange

if TYPE_CHECKING:
    from penstock.http1.server import Server

IDLE: Final = 0
HEAD: Final = 1
BODY: Final = 2
ANSWER: Final = 3
HELD: Final = 4
LINGER: Final = 5

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE = b"connection: close\r\n"
_KEEP = b"connection: keep-alive\r\n"
_JSON = b"content-type: application/json\r\n"
_LINGER_S = 5.0
_FRESH_S = 1.0
"""Time a connection that has yet to send its first request gets while the server drains."""
_EMPTY_LINES = 2
"""Empty lines ignored before a request line (RFC 9112, 2.2, asks for one)."""
_RATE_BYTES = 1_024
"""Bytes a second that a body must keep up, after its first `_RATE_AFTER_S`."""
_RATE_AFTER_S = 5.0


class Connection(asyncio.Protocol):
    __slots__ = (
        "_at",
        "_body_bytes",
        "_buffer",
        "_chunks",
        "_empty_lines",
        "_excess",
        "_exchange",
        "_head",
        "_last",
        "_left",
        "_parsing",
        "_parts",
        "_reading",
        "_since",
        "_stalled",
        "_state",
        "_unsent",
        "note",
        "noted",
        "paused",
        "peer",
        "server",
        "transport",
        "write",
    )

    transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self.server = server
        self.peer = ""
        self.paused = False
        """The caller has more than `limits.buffer_bytes` unread."""
        self._state = IDLE
        self._head = heads.NO_REQUEST
        self.noted = heads.NO_REQUEST
        self.note: object = None
        """A head, and what the application keeps with it; see Exchange.note."""
        self._exchange: Exchange | None = None
        self._last = self._parsing = False
        self._excess = False
        """Bytes came that nobody will read."""
        self._reading = True
        self._buffer = b""
        self._at = self._left = self._body_bytes = self._empty_lines = self._unsent = 0
        self._parts: list[bytes] = []
        self._chunks: Chunks | None = None
        self._since = self._stalled = server.now

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast(asyncio.Transport, transport)
        self.write = partial(self.server.outbox.put, transport)
        name = transport.get_extra_info("peername")
        self.peer = name[0] if isinstance(name, tuple) else ""
        sockets.tune(transport)
        limits = self.server.limits
        transport.set_write_buffer_limits(limits.buffer_bytes, limits.buffer_bytes // 4)
        if not self.server.admit(self):
            self._refuse(CallError(503, "too_many_connections", "The server has as many connections as it takes."))
            transport.close()

    def data_received(self, data: bytes) -> None:
        head = self._head
        if self._state == IDLE and len(data) == head.size and data.startswith(head.raw):
            # Keep-alive callers repeat their heads to the byte: a comparison instead of a parse.
            self._hand_over(head, data[len(head.raw) :])
        elif self._state != LINGER and not self._last:
            self._take(data)
        else:
            self._excess = True

    def eof_received(self) -> bool:
        """A caller that closes its half is taken to have left; the transport then closes."""
        self.server.outbox.flush()
        self._leave()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.server.forget(self)
        self._leave()

    def pause_writing(self) -> None:
        self.paused = True
        if self._state == IDLE:
            self._state = HELD
        exchange = self._exchange
        if exchange is not None and exchange.on_pause is not None:
            exchange.on_pause()

    def resume_writing(self) -> None:
        self.paused = False
        self._unsent = 0
        exchange = self._exchange
        if exchange is not None and exchange.on_resume is not None:
            exchange.on_resume()
        elif self._state == HELD:
            self._next()

    @property
    def takes_large(self) -> bool:
        """A body that may be larger than most is coming in, or is being worked on."""
        return self._state in (BODY, ANSWER) and self._head.most > self.server.limits.body_bytes

    # What exchanges tell.

    def persistence(self) -> bytes:
        """The connection header that the answer under way needs."""
        if self._last or self.server.draining:
            self._last = True
            return _CLOSE
        return _KEEP if self._head.old else b""

    def close_after(self) -> None:
        """The answer under way ends with the connection."""
        self._last = True

    def finished(self) -> None:
        """The exchange's answer is written."""
        self._exchange = None
        if self._last or self.server.draining:
            self._shut()
        elif self.paused:
            self._state = HELD
        else:
            self._next()

    def cut(self) -> None:
        """Close behind what was written, without the rest of the answer."""
        self._exchange = None
        self._shut()

    # From bytes to exchanges.

    def _take(self, data: bytes) -> None:
        self._buffer = self._buffer[self._at :] + data if self._buffer else data
        self._at = 0
        if self._state <= BODY:
            self._parse()
        elif len(self._buffer) > self.server.limits.buffer_bytes and self._reading:
            # Requests behind an unfinished one: beyond the bound they stay in the kernel.
            self._reading = False
            self.transport.pause_reading()

    def _next(self) -> None:
        self._state = IDLE
        self._since = self.server.now
        if self._buffer and not self._parsing:
            self._parse()
        if not self._reading and len(self._buffer) - self._at <= self.server.limits.buffer_bytes:
            self._reading = True
            self.transport.resume_reading()

    def _parse(self) -> None:
        """Hand over what the buffer holds, one request after the other, until one waits for bytes or for its answer."""
        self._parsing = True
        while self._buffer and self._state <= BODY:
            try:
                body = self._read_body() if self._state == BODY else self._read_head()
            except CallError as error:
                self._refuse(error)
                break
            if self._at >= len(self._buffer):
                self._buffer, self._at = b"", 0
            if body is None:
                break
            self._hand_over(self._head, body)
        self._parsing = False

    def _read_head(self) -> bytes | None:
        """Parse the head at `_at`, then as much of its body as is there: the whole body, or None when more must come."""
        head, buffer = self._head, self._buffer
        if head.method and head.most <= self.server.limits.body_bytes and buffer.startswith(head.raw, self._at):
            end = self._at + len(head.raw)
        elif head.before and (again := heads.resized(head, buffer, self._at, self.server.limits)):
            if self.noted is head:
                self.noted = again
            head = self._head = again
            end = self._at + len(head.raw)
        else:
            end = self._find_head()
            if end < 0:
                return None
            head = self._head = heads.request(buffer[self._at : end], self.server.limits, self.server.hosts, self.server.body_bytes)
        self._empty_lines = 0
        self._at = end
        if 0 <= head.length <= len(buffer) - end:
            self._at = end + head.length
            return buffer[end : self._at]
        self._await_body(head)
        body = self._read_body()
        if body is None and head.expects:
            self.write(_CONTINUE)
        return body

    def _find_head(self) -> int:
        """Where the head at `_at` ends, empty lines before it skipped; -1 while it is incomplete."""
        buffer, at = self._buffer, self._at
        while buffer.startswith(b"\r\n", at) and self._empty_lines < _EMPTY_LINES:
            self._empty_lines += 1
            at += 2
        self._at = at
        found = buffer.find(heads.END, at)
        if found >= 0:
            return found + 4
        if at < len(buffer):
            if self._state == IDLE:
                self._state = HEAD
                self._since = self.server.now
            heads.unfinished(buffer[at:], self.server.limits)
        return -1

    def _await_body(self, head: heads.RequestHead) -> None:
        limits = self.server.limits
        self._state = BODY
        self._since = self.server.now
        self._body_bytes = 0
        self._left = head.length
        self._chunks = Chunks(limits, head.most) if head.length == heads.CHUNKED else None

    def _read_body(self) -> bytes | None:
        """Take the body's bytes out of the buffer: the whole body, or None when more must come."""
        data = self._buffer[self._at :] if self._at else self._buffer
        self._body_bytes += len(data)
        chunks = self._chunks
        if chunks is not None:
            payload = chunks.feed(data)
            whole, self._buffer = chunks.done, chunks.excess
        else:
            payload, self._buffer = data[: self._left], data[self._left :]
            self._left -= len(payload)
            whole = not self._left
        self._at = 0
        if payload:
            self._parts.append(payload)
        if not whole:
            return None
        body, self._parts, self._chunks = b"".join(self._parts), [], None
        return body

    def _hand_over(self, head: heads.RequestHead, body: bytes) -> None:
        self._state = ANSWER
        self._since = self.server.now
        self._last = not head.keep_alive
        exchange = self._exchange = Exchange(self, head, body)
        try:
            self.server.app(exchange)
        except Exception as error:  # The application's bug must not become another caller's, nor leave this one waiting.
            self.server.report(error, self.transport)
            self._last = True
            if exchange.started:
                exchange.abort()
            else:
                exchange.respond(500, _JSON, heads.error_body(CallError(500, "internal_error", "The server failed.")))

    # Ends.

    def _refuse(self, error: CallError) -> None:
        """Answer what never reaches the application, and close."""
        server = self.server
        server.refusals[error.code] += 1
        body = heads.error_body(error)
        more = b"retry-after: 1\r\n" if error.status == 503 else b""
        line = server.lines[error.status]
        self.write(b"%b%b%b%bcontent-length: %d\r\n%b\r\n%b" % (line, _JSON, more, server.stamp(), len(body), _CLOSE, body))
        self._excess = True
        self._shut()

    def _drop(self) -> None:
        self._state = LINGER
        self._last = True
        self._buffer, self._at, self._parts, self._chunks = b"", 0, [], None

    def _shut(self) -> None:
        """Close behind what was written; in stages when bytes came that were not read (RFC 9112, 9.6)."""
        transport = self.transport
        self.server.outbox.flush()
        reading, self._reading = self._reading, True
        stages = (self._excess or self._at < len(self._buffer) or not reading) and transport.can_write_eof()
        self._drop()
        self._since = self.server.now
        if transport.is_closing():
            return
        if not stages:
            transport.close()
            return
        transport.write_eof()
        if not reading:
            transport.resume_reading()

    def _leave(self) -> None:
        exchange, self._exchange = self._exchange, None
        self._drop()
        if exchange is not None:
            exchange.left()

    def drain(self) -> None:
        """Close if no request is under way; one that is will be the last. A fresh connection's request is likely on its way."""
        if self._state == IDLE and self._head.method:
            self._shut()

    def check(self, now: float) -> None:
        """Enforce the deadline of the phase the connection is in."""
        state, waited, limits = self._state, now - self._since, self.server.limits
        unsent = self.transport.get_write_buffer_size()
        stuck = unsent > 0 and self._stuck(unsent, now)
        self._unsent = unsent
        if stuck:
            self.transport.abort()
        elif state == IDLE:
            if waited > (limits.keepalive_s if self._head.method else _FRESH_S if self.server.draining else limits.header_s):
                self._shut()
        elif state == HEAD:
            if waited > limits.header_s:
                self._refuse(CallError(408, "timeout", "The message head took too long."))
        elif state == BODY:
            slow = waited > _RATE_AFTER_S and self._body_bytes < waited * _RATE_BYTES
            # A body that may be larger may take longer.
            if slow or waited > limits.body_s * max(1.0, self._head.most / limits.body_bytes):
                self._refuse(CallError(408, "timeout", "The body took too long."))
        elif (state == ANSWER and waited > limits.stream_s) or (state == LINGER and waited > _LINGER_S and not unsent):
            self.transport.abort()

    def _stuck(self, unsent: int, now: float) -> bool:
        """Whether written bytes lie unread for too long. While paused or closing a trickle is no excuse."""
        if not self._unsent or (unsent < self._unsent and not self.paused and self._state != LINGER):
            self._stalled = now
        return now - self._stalled > self.server.limits.write_s
