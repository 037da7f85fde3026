"""The listener: accepts callers, holds what their connections share, and sweeps deadlines once for all of them."""

from __future__ import annotations

import asyncio
import socket
import ssl as tls
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, cast

from penstock.config import Limits
from penstock.errors import CallError
from penstock.http1.connection import Connection
from penstock.http1.exchange import Exchange
from penstock.http1.head import BodyBytes
from penstock.http1.outbox import Outbox

_BACKLOG = 4_096
_LARGE_BODIES = 8
_SWEEP_MAX_S = 1.0
_SWEEP_MIN_S = 0.01
_TLS_SHUTDOWN_S = 2.0


class StatusLines(dict[int, bytes]):
    """Status lines, made on first use; with `date`, each with the Date header that follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.date = b""

    def __missing__(self, status: int) -> bytes:
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Status"
        line = self[status] = b"HTTP/1.1 %d %b\r\n%b" % (status, phrase.encode(), self.date)
        return line

    def stamp(self) -> None:
        self.date = b"date: %b\r\n" % formatdate(usegmt=True).encode()
        self.clear()


class Server:
    """An HTTP/1.1 server that calls `app(exchange)` for each well-formed request, synchronously, head and body read.

    hosts: Host values served, with or without port; any well-formed one when empty (a guard against DNS rebinding).
    stamp: returns header lines to put on answers that the server itself makes, such as a request id.
    date: put a Date header on every answer (RFC 9110, 6.6.1).
    """

    def __init__(
        self,
        app: Callable[[Exchange], None],
        limits: Limits,
        *,
        hosts: tuple[str, ...] = (),
        stamp: Callable[[], bytes] = bytes,
        date: bool = False,
    ) -> None:
        self.app, self.limits, self.stamp = app, limits, stamp
        self.larger: BodyBytes | None = None
        """Asked for the bytes that a body may have which has more than `limits.body_bytes`."""
        self.hosts = frozenset(host.lower() for host in hosts)
        self.draining = False
        self.lines = StatusLines()
        self.now = 0.0
        """Loop time at the end of the current sweep interval: reading an attribute costs less than asking the clock."""
        self.refusals: Counter[str] = Counter()
        """Requests that never reached the application, by error code."""
        self._date = date
        self.outbox = Outbox()
        self._connections: set[Connection] = set()
        self._listeners: list[asyncio.AbstractServer] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._empty: asyncio.Event | None = None
        shortest = min(limits.header_s, limits.body_s, limits.keepalive_s, limits.write_s, limits.stream_s)
        self._interval = max(_SWEEP_MIN_S, min(_SWEEP_MAX_S, shortest / 8))

    @property
    def connections(self) -> int:
        return len(self._connections)

    def body_bytes(self, method: str, path: str, authorization: str | None) -> int:
        """The bytes that a body may have. Large ones are held in memory: only a few at a time."""
        usual = self.limits.body_bytes
        most = usual if self.larger is None else self.larger(method, path, authorization)
        if most > usual and sum(connection.takes_large for connection in self._connections) >= _LARGE_BODIES:
            raise CallError(503, "too_many_uploads", f"{_LARGE_BODIES} large bodies are here already.")
        return most

    async def listen(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        ssl: tls.SSLContext | None = None,
        sock: socket.socket | None = None,
        *,
        reuse_port: bool = False,
    ) -> int:
        """Accept connections on host:port, or on a bound socket; the port. May be called several times. Raises OSError."""
        loop = self._loop = asyncio.get_running_loop()
        if self._timer is None:
            self.outbox = Outbox(loop)
            self._sweep()
        handshake = self.limits.header_s if ssl else None
        shutdown = _TLS_SHUTDOWN_S if ssl else None
        if sock is not None:
            listener = await loop.create_server(
                self._connect, sock=sock, ssl=ssl, backlog=_BACKLOG, ssl_handshake_timeout=handshake, ssl_shutdown_timeout=shutdown
            )
        else:
            listener = await loop.create_server(
                self._connect,
                host,
                port,
                ssl=ssl,
                backlog=_BACKLOG,
                reuse_port=reuse_port,
                ssl_handshake_timeout=handshake,
                ssl_shutdown_timeout=shutdown,
            )
        self._listeners.append(listener)
        # A tuple by its type, a list by uvloop.
        bound = cast(Any, listener).sockets[0].getsockname()
        return bound[1] if isinstance(bound, tuple) else 0

    async def drain(self, timeout_s: float) -> None:
        """Stop accepting, close idle connections, let requests under way be their connections' last, cut what is left at the timeout."""
        # What the kernel holds already, connections and requests, still comes in.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.draining = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.drain()
        self._empty = asyncio.Event()
        if self._connections:
            try:
                await asyncio.wait_for(self._empty.wait(), timeout_s)
            except TimeoutError:
                for connection in list(self._connections):
                    connection.transport.abort()
                await self._empty.wait()
        if self._timer is not None:
            self._timer.cancel()

    # What connections ask and tell.

    def admit(self, connection: Connection) -> bool:
        """Count the connection; whether it is within the cap."""
        self._connections.add(connection)
        return len(self._connections) <= self.limits.connections

    def forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if self._empty is not None and not self._connections:
            self._empty.set()

    def report(self, error: Exception, transport: asyncio.Transport) -> None:
        assert self._loop is not None
        self._loop.call_exception_handler({"message": "the application failed", "exception": error, "transport": transport})

    def _connect(self) -> Connection:
        return Connection(self)

    def _sweep(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        # What begins during this interval counts from its end: no deadline fires early.
        self.now = now + self._interval
        if self._date:
            self.lines.stamp()
        for connection in list(self._connections):
            connection.check(now)
        self._timer = self._loop.call_later(self._interval, self._sweep)
