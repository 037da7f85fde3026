"""One call in flight: the callbacks of the HTTP client, turned into one entry of the tally."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic

import msgspec

from penstock.facts import Failure
from penstock.load.chunks import Chunks, Refusal
from penstock.load.plan import Shape
from penstock.load.tally import Kind, Tally

_KEPT_BYTES = 4_096
"""How much of an error body is kept, to show its message."""

_KINDS = {
    Failure.CONNECT: Kind.CONNECT,
    Failure.RESET: Kind.RESET,
    Failure.TIMEOUT: Kind.TIMEOUT,
    Failure.PROTOCOL: Kind.PROTOCOL,
}


class _Body(msgspec.Struct):
    error: Refusal | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int = 0


class _Whole(msgspec.Struct):
    usage: _Usage | None = None


class Answer:
    """Receives one answer; `due` is the intended start, on the clock of `time.monotonic`."""

    __slots__ = ("_body", "_chunks", "_first", "_last", "_status", "_tally", "due", "kind", "on_over", "retry_after_s", "shape")

    def __init__(self, tally: Tally, shape: Shape, due: float, on_over: Callable[[Answer], None]) -> None:
        self.shape, self.due, self.on_over = shape, due, on_over
        self._tally = tally
        self._status = 0
        self._first = self._last = 0.0
        self.kind: Kind | None = None
        """How it ended; None while it lives."""
        self.retry_after_s: float | None = None
        self._chunks: Chunks | None = None
        self._body = b""

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        self._status = status
        self._tally.statuses[status] += 1
        if status != 200:
            self.retry_after_s = retry_after_s(headers)
        elif headers.get("content-type", "").startswith("text/event-stream"):
            self._chunks = Chunks()

    def on_body(self, data: bytes) -> None:
        if self._chunks is None:
            if self._status == 200 or len(self._body) < _KEPT_BYTES:
                self._body += data
            return
        found = self._chunks.feed(data)
        if found:
            now = monotonic()
            if self._first:
                self._tally.gaps.add(now - self._last)
                if found > 1:
                    # They came in one read: no time passed between them.
                    self._tally.gaps.add(0.0, found - 1)
            else:
                self._first = now
            self._last = now

    def on_end(self) -> None:
        if self._status != 200:
            self._other_status()
        elif self._chunks is None:
            self._whole()
        elif self._chunks.error is not None:
            self._stream_error(self._chunks, self._chunks.error)
        elif not self._chunks.done:
            self._fail(Kind.TRUNCATED, "the stream ended without [DONE]")
        else:
            self._completed(self._chunks.usage_tokens or self._chunks.pieces)
        self.on_over(self)

    def on_failure(self, failure: Failure, detail: str) -> None:
        if self._chunks is not None and self._chunks.error is not None:
            self._stream_error(self._chunks, self._chunks.error)
        elif self._status == 200 and failure is Failure.RESET:
            self._fail(Kind.TRUNCATED, detail)
        else:
            self._fail(_KINDS.get(failure, Kind.PROTOCOL), detail)
        self.on_over(self)

    def give_up(self) -> None:
        """The call took longer than the run allows; its connection has been cancelled."""
        self._fail(Kind.TIMEOUT, "no complete answer within the time the run allows")

    def _completed(self, tokens: int) -> None:
        now = monotonic()
        self.kind = Kind.COMPLETED
        self._tally.complete(self.shape.prompt_tokens, self.due, self._first or now, self._last or now, tokens)

    def _whole(self) -> None:
        """An answer that was not streamed: all of its tokens came at once."""
        try:
            usage = msgspec.json.decode(self._body, type=_Whole).usage
        except msgspec.MsgspecError as error:
            self._fail(Kind.PROTOCOL, f"status 200 with a body that is not an answer: {error}")
            return
        self._completed(usage.completion_tokens if usage is not None else 0)

    def _other_status(self) -> None:
        if self._status in (429, 503):
            self._refused(streamed=False)
            return
        kind = {4: Kind.HTTP_4XX, 5: Kind.HTTP_5XX}.get(self._status // 100, Kind.HTTP_OTHER)
        self._fail(kind, f"{self._status}: {error_message(self._body)}")

    def _stream_error(self, chunks: Chunks, error: Refusal) -> None:
        if error.retry_after_ms is not None and not chunks.pieces:
            self.retry_after_s = error.retry_after_ms / 1_000
            self._refused(streamed=True)
        else:
            self._fail(Kind.STREAM_ERROR, error.message)

    def _refused(self, *, streamed: bool) -> None:
        self.kind = Kind.REFUSED
        self._tally.refuse(self.shape.prompt_tokens, self.retry_after_s, streamed=streamed)

    def _fail(self, kind: Kind, message: str) -> None:
        self.kind = kind
        self._tally.fail(kind, self.shape.prompt_tokens, message)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The wait a refusal asks for, when it carries a `Retry-After` in seconds; `retry-after-ms` only sharpens it."""
    try:
        whole_s = float(headers["retry-after"])
        return float(headers["retry-after-ms"]) / 1_000 if "retry-after-ms" in headers else whole_s
    except (KeyError, ValueError):
        return None


def error_message(body: bytes) -> str:
    """The message of an error body in OpenAI's shape, else its first line."""
    try:
        error = msgspec.json.decode(body, type=_Body).error
    except msgspec.MsgspecError:
        error = None
    if error is not None:
        return error.message
    return body[:200].decode(errors="replace").splitlines()[0] if body.strip() else "no body"
