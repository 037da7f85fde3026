"""Answers kept for the rung `cache`: exact matches, apart for each tenant, the longest unused given up first.

A key is a digest that nobody can aim at (BLAKE2b, 256 bits) over the tenant, the route and every field that bears on the answer.
Only requests whose ladder has the rung are kept, and only those that would be answered alike each time: with `temperature: 0`,
unless the configuration or the caller (`x-penstock-cache: sampled`) says that any answer will do.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from penstock import config
from penstock.facts import Route
from penstock.gateway.answer import Whole
from penstock.gateway.asked import CACHE, SAMPLED
from penstock.wire import openai, sse
from penstock.wire.reasoning import Thoughts

if TYPE_CHECKING:
    from penstock.gateway.auth import Tenant
    from penstock.gateway.call import Call

ASIDE = frozenset({"user", "safety_identifier", "metadata", "store", "stream", "stream_options", "prompt_cache_key", "service_tier"})
"""Fields that do not change an answer; whether it is streamed, and with its usage, is put in again, read."""
ENTRY_BYTES = 512
"""What an answer takes beside its bytes."""
SHARE = 8
"""An answer of more than this part of the cache is not kept."""
RUNG = "cache"
ENDS = frozenset({"stop", "length", "tool_calls", "function_call"})
"""Finish reasons of complete answers."""


class Kept:
    """An answer. Who was told that it is there holds it, whatever is given up meanwhile."""

    __slots__ = ("at", "body", "headers")

    def __init__(self, at: float, headers: bytes, body: bytes) -> None:
        self.at = at
        self.headers = headers
        self.body = body


_whole = msgspec.json.Decoder(Whole)


class Cache:
    """Bounded in bytes and age. `allows(id, rung)` tells whether the request's ladder has the rung."""

    def __init__(self, settings: config.Cache, allows: Callable[[int, str], bool]) -> None:
        self.settings, self.allows = settings, allows
        self.kept: OrderedDict[bytes, Kept] = OrderedDict()
        self.bytes = 0
        self.open_bytes = 0
        """Of answers still coming in."""
        self.most = settings.bytes // SHARE

    def meet(self, call: Call, tenant: Tenant) -> bool:
        """Whether an answer is at hand for the call; if not, have its own kept where that may be."""
        key = self._key(call, tenant)
        if key is None:
            return False
        found = self._find(key)
        if found is None:
            call.keep = Keep(self, key)
        else:
            call.kept = found
        return found is not None

    def take(self, call: Call) -> int | None:
        """Answer a call that was diverted here."""
        assert call.kept is not None, "diverted to an answer that is not there"
        call.replay(call.kept)
        return None

    def put(self, key: bytes, answer: Kept) -> None:
        size = len(answer.body) + ENTRY_BYTES
        if size > self.most:
            return
        self._drop(key)
        self.kept[key] = answer
        self.bytes += size
        while self.bytes > self.settings.bytes:
            self._drop(next(iter(self.kept)))

    def _find(self, key: bytes) -> Kept | None:
        found = self.kept.get(key)
        if found is None:
            return None
        if time.monotonic() - found.at > self.settings.age_s:
            self._drop(key)
            return None
        self.kept.move_to_end(key)
        return found

    def _drop(self, key: bytes) -> None:
        if (gone := self.kept.pop(key, None)) is not None:
            self.bytes -= len(gone.body) + ENTRY_BYTES

    def _key(self, call: Call, tenant: Tenant) -> bytes | None:
        """None where the answer would be drawn anew each time."""
        ask = call.ask
        fields, text = openai.canonical(call.exchange.body, ASIDE, model=ask.model, stream=[ask.stream, ask.usage_asked, ask.thinks])
        if call.route is not Route.EMBEDDINGS and not self._sampled_too(call) and _temperature(fields) != 0:
            return None
        digest = blake2b(key=tenant.salt.to_bytes(8, "big"), digest_size=32)
        for part in (tenant.name.encode(), str(call.route).encode(), text):
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.digest()

    def _sampled_too(self, call: Call) -> bool:
        return self.settings.sampled or call.exchange.headers.get(CACHE) == SAMPLED


class Keep:
    """Keeps one call's answer, once it is complete."""

    __slots__ = ("_cache", "_key", "_stream")

    def __init__(self, cache: Cache, key: bytes) -> None:
        self._cache, self._key = cache, key
        self._stream: Recorded | None = None

    def relay(self, call: Call, thoughts: Thoughts | None) -> sse.Relay:
        """For one try of a stream."""
        self.close()
        if not self._cache.allows(call.id, RUNG):
            return sse.Relay(call.ask.usage_asked, thoughts=thoughts)
        self._stream = Recorded(call.ask.usage_asked, self._cache, thoughts)
        return self._stream

    def stream(self) -> None:
        """The stream has ended."""
        relay = self._stream
        if relay is not None and relay.kept is not None and relay.done and not relay.error and relay.finish in ENDS:
            self._put(b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n", b"".join(relay.kept))

    def whole(self, call: Call, kind: str, body: bytes) -> None:
        """A JSON answer has ended."""
        wanted = kind.startswith("application/json") and self._cache.allows(call.id, RUNG)
        if wanted and (call.route is Route.EMBEDDINGS or _complete(body)):
            self._put(b"content-type: application/json\r\n", body)

    def _put(self, headers: bytes, body: bytes) -> None:
        self._cache.put(self._key, Kept(time.monotonic(), headers, body))

    def close(self) -> None:
        """Let go of what has come in."""
        if self._stream is not None:
            self._stream.give_up()
            self._stream = None


class Recorded(sse.Relay):
    """A relay that remembers what it let through, as long as there is room."""

    __slots__ = ("_cache", "_size", "kept")

    def __init__(self, usage_asked: bool, cache: Cache, thoughts: Thoughts | None) -> None:
        super().__init__(usage_asked, thoughts=thoughts)
        self._cache, self._size = cache, 0
        self.kept: list[bytes] | None = []

    def feed(self, data: bytes) -> bytes:
        return self._note(super().feed(data))

    def flush(self) -> bytes:
        return self._note(super().flush())

    def give_up(self) -> None:
        self._cache.open_bytes -= self._size
        self.kept, self._size = None, 0

    def _note(self, out: bytes) -> bytes:
        if self.kept is not None:
            cache = self._cache
            self.kept.append(out)
            self._size += len(out) + PIECE_BYTES
            cache.open_bytes += len(out) + PIECE_BYTES
            if self._size > cache.most or cache.open_bytes > cache.settings.bytes:
                self.give_up()
        return out


PIECE_BYTES = 64
"""What a piece of a stream takes beside its bytes."""


def _temperature(fields: dict[str, msgspec.Raw]) -> float | None:
    """Checked when the call was read: a number, null, or not there."""
    raw = fields.get("temperature")
    return None if raw is None else msgspec.json.decode(raw, type=float | None)


def _complete(body: bytes) -> bool:
    try:
        choices = _whole.decode(body).choices
    except msgspec.DecodeError:
        return False
    return bool(choices) and all(choice.finish_reason in ENDS for choice in choices)
