"""A call's second try on another engine, until one of the two shows a first byte.

It keeps what its engine sends to itself. When that is the first to show content, or the head of a whole answer, the call drops its
own engine and goes on from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from penstock.facts import Failure
from penstock.gateway.answer import EARLY_BYTES, failure_of, is_answer
from penstock.http1 import Call as UpstreamCall
from penstock.wire import sse

if TYPE_CHECKING:
    from penstock.gateway.call import Call
    from penstock.gateway.node import Node


class Second:
    """Receives the second engine's answer."""

    __slots__ = ("_call", "_relay", "_size", "_won", "headers", "node", "parts", "status", "upstream")

    def __init__(self, call: Call, node: Node) -> None:
        self._call, self.node = call, node
        self._relay: sse.Relay | None = None
        self._won = False
        self._size = 0
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.parts: list[bytes] = []
        self.upstream: UpstreamCall | None = node.upstream.request(node.heads[call.route], call.driver.reasoning.body(call.ask, node), self)

    def stop(self) -> None:
        if self.upstream is not None:
            self.upstream.cancel()
            self.upstream = None

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        self.status, self.headers = status, headers
        streamed = self._call.ask.stream and status == 200
        if streamed and headers.get("content-type", "").startswith("text/event-stream"):
            self._relay = sse.Relay(self._call.ask.usage_asked)
        elif is_answer(status):
            self._win()

    def on_body(self, data: bytes) -> None:
        if self._won:
            # The connection may still be handing out what came with the head.
            self._call.on_body(data)
            return
        self._size += len(data)
        relay = self._relay
        if relay is not None:
            self.parts.append(data)
            relay.feed(data)
            if relay.first or self._size > EARLY_BYTES:
                self._win()
        elif self._size > EARLY_BYTES:
            self.stop()
            self._call.second_failed(failure_of(self.status))

    def on_end(self) -> None:
        if self._won:
            self._call.on_end()
        else:
            self.upstream = None
            self._call.second_failed(Failure.PROTOCOL if self._relay is not None else failure_of(self.status))

    def on_failure(self, failure: Failure, detail: str) -> None:
        if self._won:
            self._call.on_failure(failure, detail)
        else:
            self.upstream = None
            self._call.second_failed(failure)

    def _win(self) -> None:
        self._won = True
        self._call.take_over(self)
