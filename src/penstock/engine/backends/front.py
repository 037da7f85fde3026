"""The listener before a model server in the same process: it answers while the model loads, checks the key, and drains.

The server behind it listens on a loopback port of its own, with a key that nobody else knows. What comes back is passed on as it comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from hmac import compare_digest

import msgspec

from penstock.config import Limits
from penstock.engine.backends.gathered import Gathered, as_stream
from penstock.facts import Failure
from penstock.http1 import Call, Exchange, Upstream

JSON = b"content-type: application/json\r\n"
GET = ("/health", "/metrics", "/v1/models", "/props", "/slots")
WRITTEN = ("/v1/chat/completions", "/v1/completions")
POST = (*WRITTEN, "/v1/embeddings", "/tokenize", "/detokenize", "/apply-template")
"""Nothing that changes the server or touches files is passed on."""

HOURS_S = 36_000.0
PATIENT = Limits(first_byte_s=HOURS_S, idle_s=HOURS_S, stream_s=HOURS_S)
"""How long an answer may take is the business of whoever asks."""


class Front:
    """What an http1.Server calls. `open` tells where the server behind it is, once that is ready."""

    def __init__(self, key: str) -> None:
        self._key = f"Bearer {key}".encode() if key else b""
        self._upstream: Upstream | None = None
        self._heads: dict[tuple[str, str], bytes] = {}
        self.running = 0
        """Answers under way."""

    def open(self, url: str, key: str) -> None:
        place = url.partition("://")[2]
        end = f"host: {place}\r\nauthorization: Bearer {key}\r\n"
        self._heads = {("GET", path): f"GET {path} HTTP/1.1\r\n{end}".encode() for path in GET}
        self._heads |= {("POST", path): f"POST {path} HTTP/1.1\r\n{end}content-type: application/json\r\n".encode() for path in POST}
        self._upstream = Upstream(url, PATIENT)

    def close(self) -> None:
        if self._upstream is not None:
            self._upstream.close()

    def app(self, exchange: Exchange) -> None:
        method, path = exchange.method, exchange.path
        if path not in (GET if method == "GET" else POST):
            _refuse(exchange, 404, "not_found_error", "Not found")
        elif self._key and path != "/health" and not self._knows(exchange):
            _refuse(exchange, 401, "authentication_error", "Invalid API key")
        elif self._upstream is None:
            _refuse(exchange, 503, "unavailable_error", "Loading model")
        else:
            Passing(self, exchange).begin(self._upstream, self._heads[method, path])

    def _knows(self, exchange: Exchange) -> bool:
        return compare_digest(exchange.headers.get("authorization", "").encode(), self._key)


class Passing:
    """One call on its way through."""

    __slots__ = ("_call", "_counts", "_exchange", "_front", "_gathered")

    def __init__(self, front: Front, exchange: Exchange) -> None:
        self._front, self._exchange = front, exchange
        self._call: Call | None = None
        self._counts = exchange.path in WRITTEN
        self._gathered: Gathered | None = None
        """Where a stream is put together for a caller who wants the answer whole."""

    def begin(self, upstream: Upstream, head: bytes) -> None:
        self._front.running += self._counts
        body = as_stream(self._exchange.body) if self._counts else None
        if body is not None:
            self._gathered = Gathered()
        call = self._call = upstream.request(head, self._exchange.body if body is None else body, self)
        self._exchange.on_cancel = self._left
        self._exchange.on_pause, self._exchange.on_resume = call.pause, call.resume

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        length = headers.get("content-length")
        kind = headers.get("content-type", "application/json")
        if self._gathered is not None:
            if kind.startswith("text/event-stream"):
                return
            # An error, which came whole.
            self._gathered = None
        self._exchange.start(status, f"content-type: {kind}\r\n".encode("latin-1"), None if length is None else int(length))

    def on_body(self, data: bytes) -> None:
        if self._gathered is not None:
            self._gathered.feed(data)
        else:
            self._exchange.send(data)

    def on_end(self) -> None:
        gathered = self._gathered
        if gathered is None:
            self._exchange.end()
        elif gathered.error is None:
            self._exchange.respond(200, JSON, gathered.whole())
        else:
            self._exchange.respond(500, JSON, msgspec.json.encode({"error": gathered.error}))
        self._over()

    def on_failure(self, failure: Failure, detail: str) -> None:
        if self._exchange.started:
            self._exchange.abort()
        else:
            _refuse(self._exchange, 502, "server_error", "The model server does not answer.")
        self._over()

    def _left(self) -> None:
        if self._call is not None:
            self._call.cancel()
        self._over()

    def _over(self) -> None:
        """Once: the exchange and this refer to each other."""
        if self._call is not None:
            self._call = None
            self._front.running -= self._counts
            self._exchange.on_cancel = self._exchange.on_pause = self._exchange.on_resume = None


def _refuse(exchange: Exchange, status: int, kind: str, message: str) -> None:
    """In llama.cpp's form."""
    exchange.respond(status, JSON, msgspec.json.encode({"error": {"code": status, "message": message, "type": kind}}))
