"""One request and its answer, as the application sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from penstock.http1.head import RequestHead

if TYPE_CHECKING:
    from penstock.http1.connection import Connection

_UNSENT: Final = 0
_CHUNKED: Final = 1
_COUNTED: Final = 2
_UNTIL_CLOSE: Final = 3
_NO_BODY: Final = 4


class Exchange:
    """A request, read whole, and the way to answer it: `respond` once, or `start`, `send`..., `end`.

    `headers` is shared with later requests of the connection that have an equal head: read it, never change it. Preformatted
    headers are whole lines (`b"content-type: text/plain\\r\\n"`) without content-length, transfer-encoding and connection.
    After `closed` every method does nothing, so an application need not look whether the caller is still there.
    """

    __slots__ = (
        "_connection",
        "_framing",
        "_left",
        "body",
        "closed",
        "headers",
        "method",
        "old",
        "on_cancel",
        "on_pause",
        "on_resume",
        "path",
        "query",
        "started",
    )

    def __init__(self, connection: Connection, head: RequestHead, body: bytes) -> None:
        self._connection = connection
        self._framing = _UNSENT
        self.method = head.method
        self.path = head.path
        self.query = head.query
        self.headers = head.headers
        self.old = head.old
        self.body = body
        self.started = False
        self.closed = False
        self.on_cancel: Callable[[], None] | None = None
        self.on_pause: Callable[[], None] | None = None
        self.on_resume: Callable[[], None] | None = None

    @property
    def note(self) -> object:
        """What the application noted of the connection's request before this one, if its head was the same but for content-length.

        It may hold whatever follows from the head alone, so that keep-alive callers are looked up once. None otherwise.
        """
        connection = self._connection
        return connection.note if connection.noted is connection._head else None

    @note.setter
    def note(self, note: object) -> None:
        self._connection.noted, self._connection.note = self._connection._head, note

    @property
    def peer(self) -> str:
        """The caller's address."""
        return self._connection.peer

    @property
    def paused(self) -> bool:
        """The caller has not taken what was sent; `on_resume` will tell."""
        return self._connection.paused

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """The whole answer at once."""
        if self.closed or self.started:
            return
        self.started = self.closed = True
        connection = self._connection
        line = connection.server.lines[status]
        if self.method == "HEAD" or status == 304:
            connection.write(b"%b%bcontent-length: %d\r\n%b\r\n" % (line, headers, len(body), connection.persistence()))
        elif status == 204:
            connection.write(b"%b%b%b\r\n" % (line, headers, connection.persistence()))
        else:
            connection.write(b"%b%bcontent-length: %d\r\n%b\r\n%b" % (line, headers, len(body), connection.persistence(), body))
        connection.finished()

    def start(self, status: int, headers: bytes, length: int | None = None) -> None:
        """Begin an answer whose body follows: `length` bytes of it, or chunked, or until the connection closes for HTTP/1.0."""
        if self.closed or self.started:
            return
        self.started = True
        connection = self._connection
        framing = b""
        if self.method == "HEAD" or status in (204, 304):
            self._framing = _NO_BODY
            if length is not None and self.method == "HEAD":
                framing = b"content-length: %d\r\n" % length
        elif length is not None:
            self._framing, self._left = _COUNTED, length
            framing = b"content-length: %d\r\n" % length
        elif self.old:
            self._framing = _UNTIL_CLOSE
            connection.close_after()
        else:
            self._framing = _CHUNKED
            framing = b"transfer-encoding: chunked\r\n"
        connection.write(b"%b%b%b%b\r\n" % (connection.server.lines[status], headers, framing, connection.persistence()))
        if connection.paused and self.on_pause is not None:
            # An answer before this one is still unread; its pause came before there was anybody to tell.
            self.on_pause()

    def send(self, data: bytes) -> None:
        """Bytes of the body. Beyond a declared length they are not sent and the connection is cut."""
        if self.closed or not data:
            return
        framing = self._framing
        if framing == _CHUNKED:
            self._connection.write(b"%x\r\n%b\r\n" % (len(data), data))
        elif framing == _UNTIL_CLOSE:
            self._connection.write(data)
        elif framing == _COUNTED:
            self._left -= len(data)
            if self._left < 0:
                self.abort()
            else:
                self._connection.write(data)

    def end(self, data: bytes = b"") -> None:
        """The body is complete, with `data` as its last bytes."""
        if self.closed:
            return
        if self._framing == _CHUNKED:
            self._connection.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n")
        else:
            self.send(data)
            if self._framing == _UNSENT or (self._framing == _COUNTED and self._left):
                self.abort()
        if not self.closed:
            self.closed = True
            self._connection.finished()

    def abort(self) -> None:
        """Close the connection without the end of the body, so that the caller sees that it was cut."""
        if self.closed:
            return
        self.closed = True
        self._connection.cut()

    def left(self) -> None:
        """The caller is gone. Called by the connection, once."""
        if self.closed:
            return
        self.closed = True
        if self.on_cancel is not None:
            self.on_cancel()
