"""One connection to a node: a request out, its answer in, then free for the next. The answer is distrusted like any input."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from penstock.errors import CallError
from penstock.facts import Failure
from penstock.http1 import head as heads
from penstock.http1 import sockets
from penstock.http1.chunked import Chunks

if TYPE_CHECKING:
    from penstock.http1.client import Call, Upstream

IDLE: Final = 0
HEAD: Final = 1
COUNTED: Final = 2
CHUNKED: Final = 3
UNTIL_CLOSE: Final = 4

_INTERIM_MAX = 8
"""Interim (1xx) answers ignored before one that is final."""
_STALE_S = 5.0
"""A pooled connection that dies this soon after a request was closed before the request came."""
_JOINED_BYTES = 16_384
"""Below it copying a body behind its head is cheaper than a vectored write."""


class Line(asyncio.Protocol):
    __slots__ = (
        "_answered",
        "_begun",
        "_buffer",
        "_chunks",
        "_head",
        "_heard",
        "_interim",
        "_keep",
        "_left",
        "_paused",
        "_since",
        "_stalled",
        "_state",
        "_unsent",
        "call",
        "reused",
        "transport",
        "upstream",
    )

    transport: asyncio.Transport

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.call: Call | None = None
        self._state = IDLE
        self._head = heads.NO_ANSWER
        self._buffer = b""
        self._chunks: Chunks | None = None
        self._left = self._interim = self._unsent = 0
        self._since = self._stalled = upstream.now
        self._answered = False
        """A byte of the answer came."""
        self._begun = False
        """A byte of its body came."""
        self._heard = False
        """A byte came since the last sweep."""
        self._keep = self._paused = False
        self.reused = False
        """It waited in the pool, where the node may have closed it meanwhile."""

    # What calls ask.

    def begin(self, call: Call) -> None:
        self.call = call
        self._state = HEAD
        self._since = self.upstream.now
        self._answered = self._begun = False
        self._interim = 0
        head, body = call.head, call.body
        if not body:
            if head.startswith(b"HEAD "):
                # An equal head may have come with a body, for another method.
                self._head = heads.NO_ANSWER
            bare = head.startswith((b"GET ", b"HEAD "))
            self.upstream.outbox.put(self.transport, head + (b"\r\n" if bare else b"content-length: 0\r\n\r\n"))
        elif len(body) < _JOINED_BYTES:
            self.upstream.outbox.put(self.transport, b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))
        else:
            self.upstream.outbox.put(self.transport, b"%bcontent-length: %d\r\n\r\n" % (head, len(body)), body)

    def drop(self) -> None:
        """Nobody wants the answer any more."""
        self.call = None
        self.transport.abort()

    def pause(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._since = self.upstream.now
            if not self.transport.is_closing():
                self.transport.resume_reading()

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast(asyncio.Transport, transport)
        sockets.tune(transport)
        self.upstream.opened(self)

    def data_received(self, data: bytes) -> None:
        call, state = self.call, self._state
        if call is None:
            # Nothing was asked: bytes here would be taken for the next request's answer.
            self.transport.abort()
            return
        self._heard = True
        if state == CHUNKED:
            self._take_chunks(call, data)
        elif state == HEAD:
            self._answered = True
            head = self._head
            if 0 < head.length == len(data) - len(head.raw) and not self._buffer and data.startswith(head.raw):
                # The common case of a whole small answer in one read, behind a head like the last one's.
                self._take_whole(call, head, data)
            else:
                self._take_head(call, data)
        elif state == COUNTED:
            self._take_counted(call, data)
        else:
            self._begun = True
            call.receiver.on_body(data)

    def eof_received(self) -> bool:
        call = self.call
        if call is not None and self._state == UNTIL_CLOSE:
            self._complete(call)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.upstream.lost(self)
        call = self.call
        if call is None:
            return
        if self.reused and not self._answered and not call.retried and self.upstream.now - self._since < _STALE_S:
            # The node closed its idle connection while we sent. Later it is more likely to have died of the request.
            self.call = None
            call.line = None
            call.retried = True
            self.upstream.dial(call)
        else:
            self._fail(Failure.RESET, str(error) if error else "the node closed the connection before the answer was complete")

    # The answer.

    def _take_whole(self, call: Call, head: heads.AnswerHead, data: bytes) -> None:
        self._state, self._left = COUNTED, 0
        self._keep = head.keep_alive
        receiver = call.receiver
        receiver.on_head(head.status, head.headers)
        if self.call is call:
            self._begun = True
            receiver.on_body(data[len(head.raw) :])
            if self.call is call:
                self._complete(call)

    def _take_head(self, call: Call, data: bytes) -> None:
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        head = self._head
        if head.status and data.startswith(head.raw):
            end = len(head.raw)
        else:
            try:
                found = self._parse_head(call, data)
            except CallError as error:
                self._fail(Failure.PROTOCOL, error.message)
                return
            if found is None:
                return
            head, data = found
            end = len(head.raw)
            if not call.head.startswith(b"HEAD "):
                self._head = head
        self._start(call, head, data[end:] if end < len(data) else b"")

    def _parse_head(self, call: Call, data: bytes) -> tuple[heads.AnswerHead, bytes] | None:
        """The final answer's head and the bytes from its beginning, interim answers skipped; None while it is incomplete."""
        limits = self.upstream.limits
        while True:
            end = data.find(heads.END)
            if end < 0:
                if data:
                    heads.unfinished(data, limits)
                    self._buffer = data
                return None
            head = heads.answer(data[: end + 4], limits, call.head.startswith(b"HEAD "))
            if head.status >= 200:
                return head, data
            self._interim += 1
            if head.status == 101 or self._interim > _INTERIM_MAX:
                raise CallError(400, "bad_answer", "The node sent an upgrade or too many interim answers.")
            data = data[end + 4 :]

    def _start(self, call: Call, head: heads.AnswerHead, rest: bytes) -> None:
        length = head.length
        self._keep = head.keep_alive
        if length >= 0:
            self._state, self._left = COUNTED, length
        elif length == heads.CHUNKED:
            self._state, self._chunks = CHUNKED, Chunks(self.upstream.limits)
        else:
            self._state = UNTIL_CLOSE
        call.receiver.on_head(head.status, head.headers)
        if self.call is not call:
            return
        if length >= 0:
            self._take_counted(call, rest)
        elif rest and length == heads.CHUNKED:
            self._take_chunks(call, rest)
        elif rest:
            self._begun = True
            call.receiver.on_body(rest)

    def _take_counted(self, call: Call, data: bytes) -> None:
        size, left = len(data), self._left
        excess = size > left
        if excess:
            data = data[:left]
        self._left = left - len(data)
        if data:
            self._begun = True
            call.receiver.on_body(data)
            if self.call is not call:
                return
        if not self._left:
            # Bytes behind an answer would be read as the next one's.
            self._keep = self._keep and not excess
            self._complete(call)

    def _take_chunks(self, call: Call, data: bytes) -> None:
        chunks = self._chunks
        assert chunks is not None
        try:
            payload = chunks.feed(data)
        except CallError as error:
            self._fail(Failure.PROTOCOL, error.message)
            return
        if payload:
            self._begun = True
            call.receiver.on_body(payload)
        if chunks.done and self.call is call:
            self._keep = self._keep and not chunks.excess
            self._complete(call)

    # Ends.

    def _complete(self, call: Call) -> None:
        self.call = call.line = None
        call.done = True
        self._state = IDLE
        self._since = self.upstream.now
        self._chunks = None
        transport = self.transport
        # An answer that overtook its request leaves the rest of the request on the connection.
        if self._keep and not transport.get_write_buffer_size() and not transport.is_closing():
            if self._paused:
                self.resume()
            self.upstream.free(self)
        else:
            transport.abort()
        call.receiver.on_end()

    def _fail(self, failure: Failure, detail: str) -> None:
        call, self.call = self.call, None
        self.transport.abort()
        if call is not None:
            call.line = None
            call.fail(failure, detail)

    def check(self, now: float) -> None:
        """Enforce the deadline of the phase the connection is in. Silence counts between bytes of the body only: an engine may
        send its head at once and its first token after a long prefill."""
        limits = self.upstream.limits
        if self.call is None:
            if now - self._since > limits.keepalive_s:
                self.transport.abort()
            return
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._stalled = now
        self._unsent = unsent
        if self._paused or (self._heard and self._begun):
            self._since = self.upstream.now
        self._heard = False
        limit = limits.idle_s if self._begun else limits.first_byte_s
        if now - self._since > limit:
            what = "silence inside the answer" if self._begun else "no answer"
            self._fail(Failure.TIMEOUT, f"{what} for {limit:g} s")
        elif now - self._stalled > limits.write_s:
            self._fail(Failure.TIMEOUT, f"the request was not read for {limits.write_s:g} s")
