"""The way to one node: a pool of connections and the calls on them."""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import urlsplit

from penstock.config import Limits
from penstock.errors import ConfigError
from penstock.facts import Failure
from penstock.http1.line import Line
from penstock.http1.outbox import Outbox
from penstock.http1.tls import client_context

_SWEEP_MAX_S = 1.0
_SWEEP_MIN_S = 0.01


class Receiver(Protocol):
    """Who gets an answer. One of on_end and on_failure is called, once, and neither after `Call.cancel`."""

    def on_head(self, status: int, headers: Mapping[str, str]) -> None: ...

    def on_body(self, data: bytes) -> None: ...

    def on_end(self) -> None: ...

    def on_failure(self, failure: Failure, detail: str) -> None: ...


class Call:
    """One request on its way; also good for a second try on a fresh connection when a pooled one turned out dead."""

    __slots__ = ("_paused", "body", "done", "head", "line", "receiver", "retried")

    def __init__(self, head: bytes, body: bytes, receiver: Receiver) -> None:
        self.head = head
        self.body = body
        self.receiver = receiver
        self.line: Line | None = None
        self.done = False
        self.retried = False
        self._paused = False

    def cancel(self) -> None:
        """Close the connection, so that the node stops, unless the answer is complete."""
        if self.done:
            return
        self.done = True
        if self.line is not None:
            self.line.drop()

    def pause(self) -> None:
        """Stop reading; the silence deadline stops too. At most what the transport holds already (256 KiB) still arrives."""
        self._paused = True
        if self.line is not None:
            self.line.pause()

    def resume(self) -> None:
        self._paused = False
        if self.line is not None:
            self.line.resume()

    def send(self, line: Line) -> None:
        """Put the request on a connection."""
        self.line = line
        line.begin(self)
        if self._paused:
            line.pause()

    def fail(self, failure: Failure, detail: str) -> None:
        if not self.done:
            self.done = True
            self.receiver.on_failure(failure, detail)


class Upstream:
    """Connections to one node, the last used first. Raises ConfigError for a URL or authority file that cannot be used.

    url: http or https, host and port; its path is the business of whoever builds heads. ca: PEM file of the authority to trust
    instead of the system's. sni: the name in the node's certificate, when it is not the URL's host.
    """

    def __init__(
        self,
        url: str,
        limits: Limits,
        *,
        ca: str | None = None,
        sni: str | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.limits = limits
        self.now = 0.0
        """Loop time at the end of the current sweep interval; see Server.now."""
        self.closed = False
        self._host, self._port, secure = _address(url)
        self._name = sni or self._host
        self._tls = _context(url, ca) if secure else None
        self._loop = loop or asyncio.get_running_loop()
        self.outbox = Outbox(self._loop)
        self._idle: list[Line] = []
        self._lines: set[Line] = set()
        self._dials: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        shortest = min(limits.first_byte_s, limits.idle_s, limits.keepalive_s)
        self._interval = max(_SWEEP_MIN_S, min(_SWEEP_MAX_S, shortest / 8))

    @property
    def connections(self) -> int:
        return len(self._lines)

    @property
    def idle(self) -> int:
        """Connections that wait in the pool."""
        return len(self._idle)

    def request(self, head: bytes, body: bytes, receiver: Receiver) -> Call:
        """Send a request; nothing of the receiver is called before this returns.

        head: request line and header lines, each with its CRLF, without content-length, transfer-encoding and the empty line.
        """
        call = Call(head, body, receiver)
        if self.closed:
            self._loop.call_soon(call.fail, Failure.CONNECT, "the upstream was closed")
            return call
        idle = self._idle
        while idle:
            line = idle.pop()
            if not line.transport.is_closing():
                call.send(line)
                return call
        self.dial(call)
        return call

    def close(self) -> None:
        """Close idle connections now, busy ones behind their answers."""
        self.closed = True
        for line in list(self._idle):
            line.transport.close()
        for dial in list(self._dials):
            dial.cancel()

    # What lines tell.

    def dial(self, call: Call) -> None:
        """Send on a fresh connection, as soon as there is one."""
        task = self._loop.create_task(self._dial(call))
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    def opened(self, line: Line) -> None:
        self._lines.add(line)
        if self._timer is None:
            self._sweep()

    def free(self, line: Line) -> None:
        """The line's answer is complete and the connection is good for another."""
        if self.closed:
            line.transport.close()
        else:
            line.reused = True
            self._idle.append(line)

    def lost(self, line: Line) -> None:
        self._lines.discard(line)
        if line in self._idle:
            self._idle.remove(line)

    async def _dial(self, call: Call) -> None:
        try:
            line = await asyncio.wait_for(self._connect(), self.limits.connect_s)
        except asyncio.CancelledError:
            call.fail(Failure.CONNECT, "the upstream was closed")
        except TimeoutError:
            call.fail(Failure.CONNECT, f"no connection within {self.limits.connect_s:g} s")
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError; a host name that cannot be encoded a ValueError.
            call.fail(Failure.CONNECT, str(error))
        else:
            if not call.done and not line.transport.is_closing():
                call.send(line)
            elif call.done:
                self.free(line)
            else:
                call.fail(Failure.CONNECT, "the connection was closed at once")

    async def _connect(self) -> Line:
        if self._tls is None:
            _, line = await self._loop.create_connection(self._line, self._host, self._port)
        else:
            _, line = await self._loop.create_connection(
                self._line,
                self._host,
                self._port,
                ssl=self._tls,
                server_hostname=self._name,
                ssl_handshake_timeout=self.limits.connect_s,
                ssl_shutdown_timeout=1.0,
            )
        return line

    def _line(self) -> Line:
        if self._timer is None:
            # No sweep has kept `now` up to date: a line that counted from it would be past its deadlines at once.
            self.now = self._loop.time() + self._interval
        return Line(self)

    def _sweep(self) -> None:
        now = self._loop.time()
        self.now = now + self._interval
        for line in list(self._lines):
            line.check(now)
        self._timer = self._loop.call_later(self._interval, self._sweep) if self._lines else None


def _address(url: str) -> tuple[str, int, bool]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(str(error), key="url") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(f"{url} is not http(s)://host[:port][/path]", key="url")
    secure = parts.scheme == "https"
    return parts.hostname, port or (443 if secure else 80), secure


def _context(url: str, ca: str | None) -> tls.SSLContext:
    try:
        return client_context(ca)
    except OSError as error:
        raise ConfigError(f"{ca} for {url}: {error}", key="ca") from None
