"""Calls sent at times fixed beforehand, each followed to its end, with or without the official client's retries."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Iterable, Mapping
from math import inf
from time import monotonic

import msgspec

from penstock.config import Limits
from penstock.facts import Failure
from penstock.http1.client import Upstream

LONGEST_S = 120.0
"""openai-python honours Retry-After up to this, and backs off by itself above it."""
RETRIED = {408, 409, 429}
BACKOFF_S, BACKOFF_MOST_S = 0.5, 8.0
_QUEUED = re.compile(rb": queued position=(\d+) eta_ms=(\d+)")


class Try(msgspec.Struct, eq=False):
    """One try of a call; times are seconds of the run."""

    due: float
    stream: bool
    retry: int = 0
    status: int = 0
    first: float = inf
    """When its first content came."""
    ended: float = inf
    whole: bool = False
    after_s: float = -1.0
    """The wait that its refusal asked for."""
    etas: list[tuple[float, float]] = []
    """When a comment said how much longer it will take, and how long that was."""

    def good(self, total_s: float) -> bool:
        return self.whole and self.ended - self.due <= total_s


class Answer:
    """Receives one answer."""

    def __init__(self, flow: Flow, call: Try) -> None:
        self.flow, self.call = flow, call
        self.headers: Mapping[str, str] = {}
        self.tail = b""

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        self.call.status, self.headers = status, headers

    def on_body(self, data: bytes) -> None:
        call, now = self.call, self.flow.now()
        if call.status != 200 or not call.stream:
            if call.first == inf and call.status == 200:
                call.first = now
            return
        call.etas.extend((now, int(eta) / 1_000) for _, eta in _QUEUED.findall(data))
        if call.first == inf and b'"content"' in data:
            call.first = now
        self.tail = (self.tail + data)[-512:]

    def on_end(self) -> None:
        call = self.call
        call.ended = self.flow.now()
        call.whole = call.status == 200 and (not call.stream or b"[DONE]" in self.tail)
        if call.status == 200 and not call.whole:
            found = re.search(rb'"retry_after_ms": ?(\d+)', self.tail)
            call.after_s = int(found[1]) / 1_000 if found else -1.0
        elif call.status != 200:
            call.after_s = float(self.headers.get("retry-after-ms", -1_000)) / 1_000
        self.flow.ended(call, self.headers)

    def on_failure(self, failure: Failure, detail: str) -> None:
        self.call.ended, self.call.status = self.flow.now(), 0
        self.flow.ended(self.call, {})


class Flow:
    """Calls to one server. `retries` are those of the official client; it sends the number of the try as it does."""

    def __init__(
        self,
        url: str,
        *,
        model: str = "plain",
        retries: int = 0,
        seed: int = 1,
        body: Callable[[int, bool], bytes] | None = None,
        key: str = "",
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.upstream = Upstream(url, Limits(connect_s=10.0, first_byte_s=600.0, idle_s=600.0, stream_s=1_800.0))
        host = url.partition("://")[2]
        self.head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        if key:
            self.head += f"authorization: Bearer {key}\r\n"
        self.model, self.retries, self.random = model, retries, random.Random(seed)
        self.body = body or self._body
        self.tries: list[Try] = []
        self.until = inf
        """No call is tried again later than this."""
        self.live = 0
        self.started = monotonic()
        self.idle = asyncio.Event()
        self.sent = 0

    def now(self) -> float:
        return monotonic() - self.started

    async def run(self, times: Iterable[tuple[float, bool]], started: float) -> list[Try]:
        """Sends a call at each of the times, streamed or not, and waits for all ends."""
        self.started = started
        for at, stream in times:
            wait_s = at - self.now()
            if wait_s > 0.001:
                await asyncio.sleep(wait_s)
            self.send(Try(at, stream))
        while self.live:
            self.idle.clear()
            await self.idle.wait()
        self.upstream.close()
        return self.tries

    def send(self, call: Try) -> None:
        self.live += 1
        call.etas = []
        self.tries.append(call)
        self.sent += 1
        head = f"{self.head}x-stainless-retry-count: {call.retry}\r\n".encode()
        self.upstream.request(head, self.body(self.sent, call.stream), Answer(self, call))

    def ended(self, call: Try, headers: Mapping[str, str]) -> None:
        self.live -= 1
        again = call.status in RETRIED or call.status >= 500 or call.status == 0
        again = {"true": True, "false": False}.get(headers.get("x-should-retry", ""), again)
        if again and not call.whole and call.status != 200 and call.retry < self.retries:
            wait_s = call.after_s
            if not 0 < wait_s <= LONGEST_S:
                wait_s = min(BACKOFF_S * 2**call.retry, BACKOFF_MOST_S) * (1 - 0.25 * self.random.random())
            if call.ended + wait_s <= self.until:
                self.live += 1
                self.loop.call_later(wait_s, self._again, Try(call.ended + wait_s, call.stream, call.retry + 1))
        if not self.live:
            self.idle.set()

    def _again(self, call: Try) -> None:
        self.live -= 1
        self.send(call)

    def _body(self, number: int, stream: bool) -> bytes:
        text = f"Call {number} asks for something short."
        return msgspec.json.encode({"model": self.model, "stream": stream, "messages": [{"role": "user", "content": text}]})


def poisson(rate: float, seconds: float, seed: int, streamed: float = 0.5) -> list[tuple[float, bool]]:
    draw = random.Random(seed)
    times, at = [], 0.0
    while (at := at + draw.expovariate(rate)) < seconds:
        times.append((at, draw.random() < streamed))
    return times
