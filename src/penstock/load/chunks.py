"""Reads a streamed answer as it comes: when content arrived, how much of it, and how the stream ended.

Law: no I/O and no clock. A read whose events all carry content costs one regular expression and one count; JSON is decoded
only for the few other events (role, usage, errors).
"""

from __future__ import annotations

import re

import msgspec

_CONTENT = re.compile(rb'"(?:reasoning_content|content|reasoning|text|arguments)":\s?"(?!")')
"""A non-empty piece of answer. Inside a JSON string its quotes would be escaped, so text cannot forge it."""


class _Usage(msgspec.Struct):
    completion_tokens: int = 0
    prompt_tokens: int = 0


class Refusal(msgspec.Struct):
    """The error object of OpenAI's shape, with the hint that a gateway adds when it refuses inside a stream."""

    message: str = ""
    code: str | int | None = None
    retry_after_ms: float | None = None


class _Event(msgspec.Struct):
    error: Refusal | None = None
    usage: _Usage | None = None
    retry_after_ms: float | None = None


_read_event = msgspec.json.Decoder(_Event).decode


class Chunks:
    """The state of one stream."""

    __slots__ = ("_tail", "comments", "done", "error", "pieces", "usage_tokens")

    def __init__(self) -> None:
        self._tail = b""
        self.pieces = 0
        """Events that carried content."""
        self.usage_tokens = 0
        """Output tokens by the server's own count; 0 while it gave none."""
        self.comments = 0
        self.done = False
        self.error: Refusal | None = None

    def feed(self, data: bytes) -> int:
        """Takes what one read brought; returns how many pieces of content were in it."""
        if self._tail:
            data = self._tail + data
            self._tail = b""
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        if not data.endswith(b"\n\n"):
            cut = data.rfind(b"\n\n") + 2
            if cut == 1:
                self._tail = data
                return 0
            data, self._tail = data[:cut], data[cut:]
        found = len(_CONTENT.findall(data))
        if found != data.count(b"\n\n"):
            self._others(data)
        self.pieces += found
        return found

    def _others(self, data: bytes) -> None:
        for event in data.split(b"\n\n"):
            if not event or _CONTENT.search(event):
                continue
            for line in event.split(b"\n"):
                if line.startswith(b":"):
                    self.comments += 1
                elif line.startswith(b"data:"):
                    self._payload(line[5:].strip())

    def _payload(self, payload: bytes) -> None:
        if payload == b"[DONE]":
            self.done = True
            return
        try:
            event = _read_event(payload)
        except msgspec.MsgspecError as error:
            self.error = Refusal(message=f"unreadable event: {error}")
            return
        if event.usage is not None:
            self.usage_tokens = event.usage.completion_tokens
        if event.error is not None:
            self.error = event.error
            if self.error.retry_after_ms is None:
                self.error.retry_after_ms = event.retry_after_ms
