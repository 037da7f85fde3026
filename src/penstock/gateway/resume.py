"""A stream whose engine was lost after its first byte, and the engine that goes on with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from penstock.events import Failed
from penstock.facts import Failure
from penstock.gateway.answer import failure_of
from penstock.gateway.emitted import FOLD_BYTES, Emitted
from penstock.http1 import Call as UpstreamCall
from penstock.wire.continuation import Rest
from penstock.wire.graft import Graft
from penstock.wire.written import Written

if TYPE_CHECKING:
    from penstock.gateway.call import Call
    from penstock.gateway.node import Node

DONE = b"data: [DONE]\n\n"


def emitted(call: Call) -> Emitted | None:
    """Begin to keep what the caller of a stream is sent, where it may have to be gone on with and there is room for that."""
    driver = call.driver
    size = len(call.ask.body) + FOLD_BYTES
    if call.relay is None or not call.ask.plain or not driver.core.continues(call.id) or not driver.room.take(size):
        return None
    return Emitted(call.exchange.send, driver.room, size)


def ended(call: Call) -> bool:
    """Whether the engine was lost after all that the caller is to have, but perhaps for `[DONE]`: then the stream is ended."""
    relay = call.relay
    if relay is None or not call.flowing or relay.error or call.ask.choices != 1:
        return False
    if not relay.done and (relay.finish is None or (relay.usage is None and relay.usage_asked)):
        return False
    relay.forget()
    if not relay.done:
        call.pass_on(DONE)
    call.end_stream()
    return True


def failed(call: Call, failure: Failure) -> Failed:
    """What the core is told of a call that its engine failed."""
    relay, kept = call.relay, call.emitted
    if not call.flowing or kept is None or relay is None or relay.error or relay.overflow:
        return Failed(call.id, failure, call.flowing)
    relay.forget()
    written = kept.written()
    rest = None if written is None else _rest(call, written)
    if rest is None:
        return Failed(call.id, failure, True)
    call.lost = Lost(rest, written)
    return Failed(call.id, failure, True, "", rest.form, rest.tokens)


def _rest(call: Call, written: Written) -> Rest | None:
    try:
        return Rest(call.route, call.ask.body, written.texts(), written.tokens)
    except ValueError:
        return None


class Lost:
    """What is there of a stream that stands still."""

    __slots__ = ("rest", "written")

    def __init__(self, rest: Rest, written: Written | None) -> None:
        assert written is not None
        self.rest, self.written = rest, written


class Resumed:
    """Receives the rest from another engine, and passes it on in the form of the beginning."""

    __slots__ = ("_call", "_graft", "_node", "_upstream")

    def __init__(self, call: Call, lost: Lost, node: Node) -> None:
        rest, written, way, relay = lost.rest, lost.written, node.way, call.relay
        assert relay is not None
        text, again = rest.content or rest.thoughts, rest.cut(way)
        self._call, self._node = call, node
        self._graft = Graft(
            written.frame,
            text[len(text) - again :],
            rest.left(way),
            rest.kept(way),
            written.thought_tokens,
            said=bool(rest.content),
            ended=relay.finish is not None,
        )
        self._upstream: UpstreamCall = node.upstream.request(node.heads[call.route], rest.body(way), self)
        call.upstream = self._upstream

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        if status != 200 or not headers.get("content-type", "").startswith("text/event-stream"):
            self._give_up(Failure.REFUSED if 400 <= status < 500 and status != 429 else failure_of(status))

    def on_body(self, data: bytes) -> None:
        self._pass_on(self._graft.feed(data))

    def on_end(self) -> None:
        call, graft = self._call, self._graft
        call.upstream = None
        self._pass_on(graft.flush())
        if not graft.broken:
            call.end_stream()

    def on_failure(self, failure: Failure, detail: str) -> None:
        self._call.on_failure(failure, detail)

    def _pass_on(self, data: bytes) -> None:
        call, graft = self._call, self._graft
        if data:
            call.pass_on(data)
        if graft.broken:
            self._give_up(Failure.REFUSED)
        elif graft.shown and call.first < 0:
            call.driver.first_token(call)

    def _give_up(self, failure: Failure) -> None:
        """It does not go on, or not with what was there."""
        self._upstream.cancel()
        self._call.on_failure(failure, "")
