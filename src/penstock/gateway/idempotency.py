"""Repeats: a call with the `Idempotency-Key` of one before it is given the first answer, and no second run.

While the first runs, repeats of it are further readers of its one answer: what has come so far, then the rest as it comes. An answer
is kept for `idempotency.window_s`, within `idempotency.bytes`; the oldest go first. What did not run, or failed, is not kept.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING

from penstock.config import Idempotency
from penstock.errors import CallError
from penstock.events import Finished, Reject
from penstock.gateway.claim import Claim
from penstock.http1 import Exchange

if TYPE_CHECKING:
    from penstock.gateway.call import Call

PATIENCE_S = 10.0
"""Official clients repeat after a read time-out, up to 8 s later: that long a call on an engine goes on for a caller who left
before its answer began."""
OVERHEAD_BYTES = 1_024
"""What an answer takes beside its bytes."""
UNKNOWN = -1
PIECE_BYTES = 48
"""What a piece of a stream takes beside its bytes."""
REPLAYED = b"idempotent-replayed: true\r\n"
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_TRANSIENT = frozenset((408, 409, 429))
"""Engines' refusals that a repeat should try again."""

Name = tuple[str, str]
"""Tenant and key."""


class Kept:
    """A complete answer."""

    __slots__ = ("after", "at", "before", "body", "digest", "size", "status")

    def __init__(self, digest: bytes, status: int, before: bytes, after: bytes, body: bytes, at: float, size: int) -> None:
        self.digest = digest
        self.status = status
        self.before = before
        """Header lines before and after those that are each request's own."""
        self.after = after
        self.body = body
        self.at = at
        self.size = size


class Repeats:
    """The answers of calls that came with a key. `calls` are those under way, by id."""

    __slots__ = ("_calls", "_config", "_loop", "_running", "bytes", "counts", "kept")

    def __init__(self, config: Idempotency, calls: Mapping[int, Call]) -> None:
        self._config, self._calls = config, calls
        self._loop = asyncio.get_running_loop()
        self._running: dict[Name, Shared] = {}
        self.kept: OrderedDict[Name, Kept] = OrderedDict()
        """In the order in which they were completed. A plain dict would search for its first entry among all that were taken out."""
        self.bytes = 0
        self.counts = dict.fromkeys(("replayed", "joined", "refused"), 0)

    def answer(self, exchange: Exchange, route: str, name: Name, head: bytes) -> bytes | None:
        """Answer a repeat, now or when the first is; None when it was one. Else the digest of a first call, for `share`.

        Raises CallError for a key that is none, or that came with another body.
        """
        if not _KEY.fullmatch(name[1]):
            raise CallError(400, "invalid_idempotency_key", "Idempotency-Key must be 1 to 255 printable ASCII characters.")
        digest = blake2b(exchange.body, digest_size=16, person=route.encode()).digest()
        self._expire()
        kept = self.kept.get(name)
        running = None if kept is not None else self._running.get(name)
        if running is not None and running.closed:
            # Its answer was given within this very callback, or its caller left before there was one.
            kept, running = running.ready(), None
        first = kept or running
        if first is None:
            return digest
        if first.digest != digest:
            self.counts["refused"] += 1
            message = "This Idempotency-Key came with another request before; use a new key for a new request."
            raise CallError(422, "idempotency_key_reused", message)
        if kept is not None:
            self.counts["replayed"] += 1
            exchange.respond(kept.status, kept.before + head + REPLAYED + kept.after, kept.body)
        elif running is not None:
            running.join(exchange, head + REPLAYED)
            self.counts["joined"] += 1
        return None

    def share(self, exchange: Exchange, name: Name, digest: bytes, id: int, head: bytes) -> Shared:
        """The exchange of a first call, to be answered instead of its caller's own. The call's claim must be an `Ending` of it."""
        shared = self._running[name] = Shared(self, exchange, name, digest, id, head)
        self.bytes += OVERHEAD_BYTES
        return shared

    # --- what shared exchanges tell

    def grow(self, shared: Shared, size: int) -> None:
        """Bytes of an answer came. Where there is no room even without the older answers, this one is not kept."""
        shared.size += size
        self.bytes += size
        if self.bytes > self._config.bytes:
            self._evict()
            if self.bytes > self._config.bytes:
                self.forgo(shared)

    def forgo(self, shared: Shared) -> None:
        """Its answer is not to be kept."""
        self.bytes -= shared.size - OVERHEAD_BYTES
        shared.forgo()

    def ended(self, shared: Shared, event: Finished | Reject | None) -> None:
        """The call ended. From now on its key is either answered from what is kept, or free."""
        if self._running.get(shared.name) is shared:
            del self._running[shared.name]
        if shared.complete and isinstance(event, Finished) and _final(event.status):
            self.kept[shared.name] = shared.keep(time.monotonic())
            self._evict()
        else:
            self.bytes -= shared.size
            shared.forgo()

    def sent(self, id: int) -> bool:
        """Whether the call is on an engine."""
        call = self._calls.get(id)
        return call is not None and call.node is not None

    def later(self, do: Callable[[], None]) -> None:
        self._loop.call_later(PATIENCE_S, do)

    def _expire(self) -> None:
        since = time.monotonic() - self._config.window_s
        while self.kept:
            name, oldest = next(iter(self.kept.items()))
            if oldest.at > since:
                break
            self._forget(name)

    def _evict(self) -> None:
        while self.bytes > self._config.bytes and self.kept:
            self._forget(next(iter(self.kept)))

    def _forget(self, name: Name) -> None:
        self.bytes -= self.kept.pop(name).size


class Ending:
    """The claim on a call whose exchange is shared, with the claim that limits have on it."""

    __slots__ = ("claim", "repeats", "shared")

    def __init__(self, repeats: Repeats, shared: Shared, claim: Claim | None) -> None:
        self.repeats = repeats
        self.shared = shared
        self.claim = claim

    def end(self, call: Call, event: Finished | Reject | None) -> None:
        if self.claim is not None:
            self.claim.end(call, event)
        self.repeats.ended(self.shared, event)


class Shared(Exchange):
    """One call's exchange with any number of readers: its first caller, and repeats."""

    __slots__ = (
        "_after", "_before", "_head", "_id", "_keeping", "_length", "_parts", "_readers", "_repeats", "_status", "complete", "digest",
        "name", "size",
    )  # fmt: skip

    def __init__(self, repeats: Repeats, exchange: Exchange, name: Name, digest: bytes, id: int, head: bytes) -> None:
        self.method, self.path, self.query, self.headers, self.old = "POST", exchange.path, exchange.query, exchange.headers, False
        self.started = self.closed = False
        self.on_cancel = self.on_pause = self.on_resume = None
        self.body = exchange.body
        exchange.body = b""
        self.name, self.digest, self.size = name, digest, OVERHEAD_BYTES
        self.complete = False
        """The answer's end came."""
        self._repeats, self._id, self._head = repeats, id, head
        self._status, self._length = 0, UNKNOWN
        self._before = self._after = b""
        self._parts: list[bytes] = []
        self._keeping = True
        self._readers: tuple[tuple[Exchange, bytes], ...] = ()
        self._add(exchange, head)

    @property
    def status(self) -> int:
        """Of the answer; 0 before it."""
        return self._status

    # --- what the call asks

    @property
    def paused(self) -> bool:
        """The slowest reader sets the pace: nothing piles up for it."""
        return any(reader.paused and not reader.closed for reader, _ in self._readers)

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        if self.closed or self.started:
            return
        self._begin(status, headers)
        self._record(body)
        self._finish()
        for reader, head in self._release():
            reader.respond(status, self._before + head + self._after, body)

    def start(self, status: int, headers: bytes, length: int | None = None) -> None:
        if self.closed or self.started:
            return
        self._begin(status, headers)
        self._length = UNKNOWN if length is None else length
        for reader, head in self._readers:
            self._follow(reader)
            reader.start(status, self._before + head + self._after, length)

    def send(self, data: bytes) -> None:
        if self.closed or not data:
            return
        self._record(data)
        for reader, _ in self._readers:
            reader.send(data)

    def end(self, data: bytes = b"") -> None:
        if self.closed:
            return
        if data:
            self._record(data)
        self._finish()
        for reader, _ in self._release():
            reader.end(data)

    def abort(self) -> None:
        if self.closed:
            return
        self.closed = True
        for reader, _ in self._release():
            reader.abort()

    # --- its readers

    def join(self, exchange: Exchange, head: bytes) -> None:
        """One more reader. Raises CallError when the beginning of the answer is gone."""
        if not self._keeping:
            message = "The first request with this Idempotency-Key is being answered, and its answer is too large to keep; try again later."
            raise CallError(409, "idempotency_in_progress", message)
        exchange.body = b""
        self._add(exchange, head)
        if self.started:
            self._follow(exchange)
            exchange.start(self._status, self._before + head + self._after, None if self._length < 0 else self._length)
            exchange.send(b"".join(self._parts))

    def _add(self, exchange: Exchange, head: bytes) -> None:
        exchange.on_cancel = partial(self._gone, exchange)
        self._readers = (*self._readers, (exchange, head))

    def _follow(self, reader: Exchange) -> None:
        """Go at the pace at which it reads."""
        reader.on_pause, reader.on_resume = self._pause, self._resume

    def _gone(self, exchange: Exchange) -> None:
        """A reader is gone. The last one takes the call with it, unless it may be back: a client's read time-out shows as a leave."""
        self._readers = tuple(pair for pair in self._readers if pair[0] is not exchange)
        exchange.on_cancel = exchange.on_pause = exchange.on_resume = None
        if self._readers:
            self._resume()
        elif self.started or not self._repeats.sent(self._id):
            self._abandon()
        else:
            self._repeats.later(self._abandon)

    def _abandon(self) -> None:
        if not self._readers:
            self.left()

    def _pause(self) -> None:
        if self.on_pause is not None:
            self.on_pause()

    def _resume(self) -> None:
        if self.on_resume is not None and not self.paused:
            self.on_resume()

    def _release(self) -> tuple[tuple[Exchange, bytes], ...]:
        """The readers, for their last words: nothing they tell matters any more."""
        readers, self._readers = self._readers, ()
        for reader, _ in readers:
            reader.on_cancel = reader.on_pause = reader.on_resume = None
        return readers

    # --- its answer

    def _begin(self, status: int, headers: bytes) -> None:
        self.started = True
        self._status = status
        self._before, _, self._after = headers.partition(self._head)
        if self._keeping:
            self._repeats.grow(self, len(headers))

    def _record(self, data: bytes) -> None:
        if self._keeping:
            self._parts.append(data)
            self._repeats.grow(self, len(data) + PIECE_BYTES)

    def _finish(self) -> None:
        self.closed = True
        self.complete = self._keeping

    def forgo(self) -> None:
        """Its bytes are not kept."""
        self._keeping, self._parts, self.size = False, [], OVERHEAD_BYTES

    def ready(self) -> Kept | None:
        """Its answer, for a repeat that comes before the call's end is told; None where it is to run."""
        return self.keep(time.monotonic()) if self.complete and _final(self._status) else None

    def keep(self, now: float) -> Kept:
        return Kept(self.digest, self._status, self._before, self._after, b"".join(self._parts), now, self.size)


def _final(status: int) -> bool:
    return status < 500 and status not in _TRANSIENT
