"""One call's life between its caller and the engines: the answer's way back, whatever happens on it.

    waiting -> sent -> early -> steady -> ended       a stream: bytes are kept back until content shows
    waiting -> sent -> whole -> ended                 a JSON answer or an engine's 4xx, sent on when complete
                   \\-> large -> ended                 a JSON answer too large to keep, relayed as it comes
                   \\-> spoilt -> failed               an answer that is not for callers

Until the first byte of an answer has gone to the caller the call may start again on another engine. Comments and newlines that
keep a waiting caller's connection alive commit the status, not the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from penstock.events import Failed, Finished
from penstock.facts import Failure, Route
from penstock.gateway import resume
from penstock.gateway.absent import Absent
from penstock.gateway.answer import EARLY_BYTES, failure_of, is_answer
from penstock.gateway.refusal import Refusal
from penstock.gateway.second import Second
from penstock.http1 import Call as UpstreamCall
from penstock.http1 import Exchange
from penstock.wire import openai, sse

if TYPE_CHECKING:
    from penstock.events import Forward, Reject
    from penstock.gateway.cache import Keep, Kept
    from penstock.gateway.claim import Claim
    from penstock.gateway.driver import Driver
    from penstock.gateway.emitted import Emitted
    from penstock.gateway.node import Node

BODY_BYTES = 16_384
"""A larger request is not kept once its answer streams, which may take half an hour."""

WHOLE: Final = 0
LARGE: Final = 1
SPOILT: Final = 2

STREAM = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
JSON = b"content-type: application/json\r\n"
SERVED = b"x-penstock-served-by: %b\r\n"
WAITING = SERVED % b"wait"
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,64}/[A-Za-z0-9!#$&^_.+-]{1,64}(; ?charset=[A-Za-z0-9_-]{1,32})?")


class Call:
    """Receives the engine's answer and the caller's signals; tells the driver what happened."""

    __slots__ = (
        "_kind", "_length", "_mode", "_out", "_parts", "_size", "_steady", "arrived", "ask", "asked_model", "claim", "counted", "driver",
        "emitted", "exchange", "failure", "fed", "first", "flowing", "head", "id", "joined", "keep", "kept", "lost", "node", "queue_ms",
        "relay", "route", "second", "served", "status", "tenant", "tries", "upstream",
    )  # fmt: skip

    def __init__(
        self, driver: Driver, exchange: Exchange | Absent, route: Route, ask: openai.Call, id: int, head: bytes, arrived: float,
        claim: Claim | None = None,
    ) -> None:  # fmt: skip
        self.driver = driver
        self.exchange = exchange
        self.route = route
        self.ask = ask
        self.id = id
        self.head = head
        """Header lines that every form of the answer carries."""
        self.arrived = arrived
        self.claim = claim
        """Told, once, how the call ended."""
        self.tenant = ""
        """Whose it is."""
        self.fed = 0.0
        """When the hold last sent a sign of life."""
        self.node: Node | None = None
        self.upstream: UpstreamCall | None = None
        self.relay: sse.Relay | None = None
        self.failure: Failure | None = None
        self.queue_ms = 0
        self.status = 0
        """The engine's."""
        self.first = -1.0
        """When a stream's content was first seen."""
        self.counted = 0
        """Of its tokens, those that the driver has reported."""
        self.served = b""
        """Header line that names the rungs taken; empty when it was served at once as asked."""
        self.asked_model = ""
        """The model asked for, once another one was tried."""
        self.tries = 0
        """Times it was sent to an engine."""
        self.second: Second | None = None
        """Its second try, while it is undecided which one serves it."""
        self.kept: Kept | None = None
        """An answer to the very same request, from before."""
        self.keep: Keep | None = None
        """Where its answer is kept for those who ask the same, if that may be."""
        self.flowing = False
        """Bytes of an answer have gone to the caller: no other engine can begin it anew."""
        self.emitted: Emitted | None = None
        """What the caller of a stream was sent, where another engine may have to go on with it."""
        self.lost: resume.Lost | None = None
        """Its engine broke off, and another one is to go on."""
        self.joined = 0
        """Tokens that engines before the present one wrote."""
        self._out: Callable[[bytes], None] = exchange.send
        """Takes what a stream's caller is sent."""
        self._steady = False
        self._mode = WHOLE
        self._parts: list[bytes] = []
        self._size = 0
        self._kind = ""
        self._length: str | None = None

    # --- what the driver asks for

    def send(self, node: Node, now: float, action: Forward) -> None:
        """Ask the engine, for the first time or again."""
        self.node = node
        if action.rungs:
            self.climb(action.rungs)
            self._ask_for(action.model)
        self.queue_ms = int((now - self.arrived) * 1000)
        if self.tries:
            self._restart()
        self.tries += 1
        body = self.ask.body if self.ask.thinks is None else self.driver.reasoning.body(self.ask, node)
        self.upstream = node.upstream.request(node.heads[self.route], body, self)
        if self.exchange.paused:
            self._pause()

    def go_on(self, node: Node) -> None:
        """Ask another engine for the rest."""
        lost, self.lost = self.lost, None
        if lost is not None:
            self.node, self.joined = node, lost.rest.tokens
            resume.Resumed(self, lost, node)
            if self.exchange.paused:
                self._pause()

    def _restart(self) -> None:
        self.relay, self.status, self._mode, self._size, self._parts = None, 0, WHOLE, 0, []

    def recall(self) -> bool:
        """Stop the engine and forget what came; whether it was not too late for that."""
        if self.flowing:
            return False
        self.stop()
        self._restart()
        return True

    def climb(self, rungs: tuple[str, ...]) -> None:
        """The caller will be told which rungs of its ladder were taken."""
        self.served = SERVED % ", ".join(rungs).encode()

    def _ask_for(self, model: str) -> None:
        if model and model != self.ask.model:
            self.asked_model = self.asked_model or self.ask.model
            self.ask = msgspec.structs.replace(self.ask, model=model, body=openai.with_model(self.ask.body, model))
            # Another model's answer is not what those who ask the same again would get.
            if self.keep is not None:
                self.keep.close()
                self.keep = None

    def replay(self, answer: Kept) -> None:
        """Give the caller an answer kept from before, to its last byte."""
        exchange = self.exchange
        if not exchange.started:
            exchange.respond(200, answer.headers + self._headers(), answer.body)
        elif self.ask.stream:
            exchange.end(self._remark() + answer.body)
        else:
            exchange.end(answer.body)

    def _remark(self) -> bytes:
        """What a header line would have said, had the head not gone out before it was known."""
        return b": " + self.served.removeprefix(b"x-penstock-").replace(b": ", b" ").rstrip() + b"\n\n" if self.served else b""

    def refuse(self, action: Reject) -> None:
        """The core's last word: there will be no (more) answer."""
        exchange = self.exchange
        refusal = Refusal(action, self.failure)
        if self.node is None:
            self.queue_ms = refusal.queued_ms
        if not exchange.started:
            exchange.respond(refusal.status, refusal.headers() + self._headers(), refusal.body())
        elif self.ask.stream and self._mode != LARGE:
            exchange.end(refusal.event())
        else:
            exchange.abort()

    def feed(self, line: bytes) -> None:
        """A sign of life for a caller who waits; commits status 200."""
        exchange = self.exchange
        if not exchange.started:
            # Node and time in the queue are not known yet, unless it is the engine that takes long.
            exchange.start(200, (STREAM if self.ask.stream else JSON) + (self._headers() if self.node else self.head + WAITING))
        if not exchange.paused:
            exchange.send(line)

    def stop(self) -> None:
        """Nobody waits for the engine's answer any more."""
        self._stop_own()
        self._drop_second()

    def _stop_own(self) -> None:
        if self.upstream is not None:
            self.upstream.cancel()
            self.upstream = None

    def close(self) -> None:
        """Let go: a call and its exchange refer to each other."""
        exchange = self.exchange
        exchange.on_cancel = exchange.on_pause = exchange.on_resume = None
        self.upstream = self.second = None
        self._parts = []
        if self.keep is not None:
            self.keep.close()
        if self.emitted is not None:
            self.emitted.close()

    # --- two tries

    def hedge(self, node: Node) -> bool:
        """Try a second engine beside the first; whether there is still need."""
        if self.flowing or (self.status and self.relay is None and self._mode != SPOILT):
            return False
        self.second = Second(self, node)
        return True

    def take_over(self, second: Second) -> None:
        """The second try is the first to show something: go on from there."""
        self.second = None
        self._stop_own()
        self._restart()
        self.node, self.upstream = second.node, second.upstream
        if self.upstream is not None:
            self.upstream.receiver = self
            if self.exchange.paused:
                self.upstream.pause()
        self.driver.decided(self)
        self.on_head(second.status, second.headers)
        for data in second.parts:
            self.on_body(data)

    def second_failed(self, failure: Failure) -> None:
        second, self.second = self.second, None
        if second is None:
            return
        if self.upstream is None:
            self._fail(failure)
        else:
            self.driver.handle(Failed(self.id, failure, False, second.node.config.name))

    def _won(self) -> None:
        self._drop_second()
        self.driver.decided(self)

    def _drop_second(self) -> None:
        if self.second is not None:
            self.second.stop()
            self.second = None

    # --- what the engine sends

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        kind = headers.get("content-type", "")
        sse_wanted = self.ask.stream and status == 200
        if sse_wanted and kind.startswith("text/event-stream"):
            thoughts = self.driver.reasoning.thoughts(self)
            self.relay = sse.Relay(self.ask.usage_asked, thoughts=thoughts) if self.keep is None else self.keep.relay(self, thoughts)
            self._listen()
        elif not is_answer(status) or (sse_wanted and self.exchange.started):
            self._mode = SPOILT
        else:
            self._kind, self._length = kind, headers.get("content-length")
            if self.second is not None:
                self._won()

    def on_body(self, data: bytes) -> None:
        relay = self.relay
        if relay is None:
            self._collect(data)
        elif self._steady:
            self._out(relay.feed(data))
        else:
            self._early(relay, relay.feed(data))

    def on_end(self) -> None:
        self.upstream = None
        if self.relay is not None:
            self.end_stream()
        elif self._mode == SPOILT:
            self._fail(failure_of(self.status))
        else:
            self._end_whole()

    def on_failure(self, failure: Failure, detail: str) -> None:
        self.upstream = None
        self._fail(failure)

    # --- streams

    def _early(self, relay: sse.Relay, data: bytes) -> None:
        """Bytes before content, such as the event that only names the role: another engine could still take over."""
        if data:
            self._parts.append(data)
            self._size += len(data)
        if relay.first:
            self._steady = True
            self._flow()
            self.driver.first_token(self)
        elif self._size > EARLY_BYTES:
            self._flow()

    def _flow(self) -> None:
        exchange = self.exchange
        if not exchange.started:
            exchange.start(200, STREAM + self._headers())
        elif not self.flowing and (remark := self._remark()):
            exchange.send(remark)
        self._commit()
        parts, self._parts = self._parts, []
        self._out(parts[0] if len(parts) == 1 else b"".join(parts))

    def pass_on(self, data: bytes) -> None:
        """Events of the rest, in the form of the beginning."""
        assert self.relay is not None
        if sent := self.relay.feed(data):
            self._out(sent)

    def end_stream(self) -> None:
        relay = self.relay
        assert relay is not None
        if rest := relay.flush():
            self._parts.append(rest)
        if not self.flowing and not self._parts:
            self._fail(Failure.PROTOCOL)
            return
        if not self.flowing and not is_answer(relay.status or 200):
            # "Busy", or a failure, that came as an event because the status had gone out before: another engine can take over.
            self._fail(failure_of(relay.status))
            return
        if self._parts:
            self._flow()
        self.exchange.end()
        # An error inside the stream is the engine's answer, but nothing to learn from.
        status, usage = 500 if relay.error else 200, relay.usage
        if relay.thoughts is not None:
            self.driver.reasoning.streamed(self, relay.thoughts)
        if self.keep is not None:
            self.keep.stream()
        if usage is None:
            self.driver.finished(self, Finished(self.id, status, output_tokens=relay.tokens))
        else:
            self.driver.finished(self, _finished(self.id, status, usage))

    # --- whole answers

    def _collect(self, data: bytes) -> None:
        self._size += len(data)
        if self._mode == WHOLE:
            self._parts.append(data)
            if self._size > self.driver.limits.buffer_bytes:
                self._enlarge()
        elif self._mode == LARGE:
            self.exchange.send(data)
        elif self._size > EARLY_BYTES:
            self._stop_own()
            self._fail(failure_of(self.status))

    def _enlarge(self) -> None:
        """Too large to keep: relay it, with back-pressure. It can no longer be tried elsewhere."""
        exchange = self.exchange
        if exchange.started and self.status >= 400:
            self._stop_own()
            self._end_whole()
            return
        self._mode = LARGE
        self._commit()
        if not exchange.started:
            exchange.start(self.status, self._typed_headers(), None if self._length is None else int(self._length))
        self._listen()
        parts, self._parts = self._parts, []
        exchange.send(b"".join(parts))

    def _end_whole(self) -> None:
        exchange, status, parts = self.exchange, self.status, self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        if status == 200 and self._mode == WHOLE:
            body = self.driver.reasoning.whole(self, body)
        if self._mode == LARGE:
            exchange.end()
        elif not exchange.started:
            exchange.respond(status, self._typed_headers(), body)
        elif status < 400:
            exchange.end(body)
        elif self.ask.stream:
            exchange.end(sse.error_event(status, "engine_refused", f"The engine refused the request with status {status}."))
        else:
            exchange.abort()
        if self.keep is not None and status == 200 and self._mode == WHOLE:
            self.keep.whole(self, self._kind, body)
        usage = openai.usage(body) if status < 400 and body else None
        if usage is None:
            self.driver.finished(self, Finished(self.id, status))
        else:
            self.driver.finished(self, Finished(self.id, status, usage.prompt_tokens, usage.cached_tokens, usage.output_tokens))

    # --- both

    def _fail(self, failure: Failure) -> None:
        if self.second is not None and self.node is not None:
            # The other try goes on alone.
            self.driver.handle(Failed(self.id, failure, False, self.node.config.name))
            return
        self.failure = failure
        if not resume.ended(self):
            self.driver.failed(self, failure)

    def _commit(self) -> None:
        """The answer goes to the caller from now on: nothing will be sent to another engine."""
        if self.second is not None:
            self._won()
        if not self.flowing:
            self.flowing, self.emitted = True, resume.emitted(self)
        if self.emitted is not None:
            self._out = self.emitted.send
        elif len(self.ask.body) > BODY_BYTES:
            self.ask = msgspec.structs.replace(self.ask, body=b"")
            self.exchange.body = b""
            if self.upstream is not None:
                self.upstream.body = b""

    def _headers(self) -> bytes:
        return b"%b%b%b%d\r\n" % (self.head, self.served, b"x-penstock-queue-ms: " if self.node is None else self.node.lines, self.queue_ms)

    def _typed_headers(self) -> bytes:
        kind = self._kind
        if kind == "application/json":
            return JSON + self._headers()
        if not _MEDIA_TYPE.fullmatch(kind):
            kind = "application/octet-stream"
        return b"content-type: %b\r\n%b" % (kind.encode(), self._headers())

    # --- what the caller does

    def _listen(self) -> None:
        """Answers that are relayed as they come are read no faster than the caller reads."""
        self.exchange.on_pause, self.exchange.on_resume = self._pause, self._resume

    def _pause(self) -> None:
        if self.upstream is not None:
            self.upstream.pause()

    def _resume(self) -> None:
        if self.upstream is not None:
            self.upstream.resume()

    def left(self) -> None:
        self.driver.cancelled(self)


def _finished(id: int, status: int, usage: openai.Usage) -> Finished:
    return Finished(id, status, usage.prompt_tokens, usage.cached_tokens, usage.output_tokens)
