"""Streamed answers: the bytes go on as they came, in whole events, while tokens, usage and the finish are noticed.

An engine's events differ in little but the text they add. So the bytes around the text of the last ordinary event are kept,
and an event with the same bytes around another plain string is known for an ordinary one without being parsed. Where thoughts have to be
brought into form (`wire/reasoning`) such an event gets other bytes before its text, or is read until no more is to be done.
"""

from __future__ import annotations

import re

from penstock.wire import chunk
from penstock.wire.counts import Counts, Usage
from penstock.wire.openai import error
from penstock.wire.reasoning import Thoughts
from penstock.wire.usage import of

EVENT_BYTES = 1_048_576
"""Longest event held back to be seen whole."""

_NEVER = b"\xff"
"""No UTF-8 text starts with it."""
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)").search


class Relay:
    """Looks at one streamed answer. `usage_asked` tells whether the caller wants the usage chunk for himself."""

    __slots__ = (
        "_edge", "_from", "_guarded", "_head", "_head_sent", "_held", "_held_bytes", "_known", "_limit", "_newline", "_same", "_tail",
        "_tail_bytes", "_tail_sent", "done", "error", "finish", "first", "overflow", "status", "thoughts", "tokens", "usage", "usage_asked",
    )  # fmt: skip

    def __init__(self, usage_asked: bool, limit: int = EVENT_BYTES, thoughts: Thoughts | None = None) -> None:
        self.usage_asked = usage_asked
        self.thoughts = thoughts
        """What to do about them; None: nothing."""
        self.tokens = 0
        """Events that added output, one for each choice they added to."""
        self.first = False
        """Some output was seen."""
        self.usage: Usage | None = None
        self.finish: str | None = None
        self.done = False
        """`[DONE]` was seen."""
        self.error = False
        """The engine sent an error inside the stream."""
        self.status = 0
        """The HTTP status that error would have had, where it says so."""
        self.overflow = False
        """An event was longer than `limit` bytes; from there on the stream goes through unseen."""
        self._limit = limit
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._edge = b""
        """Last bytes held: a blank line may lie across the next border."""
        self._newline: bytes | None = None
        """What to send for a newline that comes next, when an event ended in a carriage return; None when none did."""
        self._head = self._known = _NEVER
        """The bytes before an ordinary event's text; `_head` is disarmed while anything is held."""
        self._from = self._tail_bytes = 0
        self._tail = self._tail_sent = self._head_sent = b""
        self._same = True
        """An ordinary event is sent as it came."""
        self._guarded = False
        """It must be read if there may be a tag in its text."""

    def feed(self, data: bytes) -> bytes:
        """The bytes to send on for `data`: mostly the same object, never an incomplete event."""
        if data.startswith(self._head) and data.endswith(self._tail):
            end = len(data) - self._tail_bytes
            if data.find(b'"', self._from) == end > self._from and (not self._guarded or _no_tag(data, self._from, end)):
                self.tokens += 1
                return data if self._same else self._head_sent + data[self._from : end] + self._tail_sent
        return self._whole(data)

    def flush(self) -> bytes:
        """What is held of a last event that the stream's proper end completes."""
        rest = self._release()
        if self.overflow:
            return rest
        last = self._event(rest) if rest else rest
        kept = b"" if self.thoughts is None else self.thoughts.closing()
        return last + kept if kept else last

    def forget(self) -> None:
        """Drop what is held: the rest of that event will not come. What comes from here on is in the form that callers are given, and
        thoughts that were held back come again.
        """
        self._release()
        self.thoughts = None
        self._newline, self._head = None, _NEVER
        self._known, self._guarded = _NEVER, False

    def _whole(self, data: bytes) -> bytes:
        """Send on what makes whole events together with what is held; hold the rest."""
        if self.overflow:
            return data
        lead = b""
        if self._newline is not None and data:
            if data.startswith(b"\n"):
                lead, data = self._newline, data[1:]
            self._newline, self._head = None, self._known
        if self._held and not self._completes(data):
            self._hold(data)
        else:
            whole = self._events(self._release() + data if self._held else data)
            lead = lead + whole if lead else whole
        if not self.overflow:
            return lead
        if self.thoughts is not None:
            lead += self.thoughts.closing()
        return lead + self._release()

    def _events(self, data: bytes) -> bytes:
        returns = b"\r" in data
        out: list[bytes] = []
        start = sent = 0
        kept = b""
        while (end := _end(data, start, returns)) > 0:
            # The same object where it is all there is: compiled, a slice of the whole is a copy, as is a sum with nothing.
            event = data if end - start == len(data) else data[start:end]
            kept = self._event(event)
            if kept is not event:
                out += data[sent:start], kept
                sent = end
            start = end
        if start < len(data):
            self._hold(data[start:])
        elif returns and data.endswith(b"\r"):
            self._newline = b"\n" if kept else b""
            self._head = _NEVER
        if not sent:
            return data if start == len(data) else data[:start]
        return b"".join((*out, data[sent:start]))

    def _completes(self, data: bytes) -> bool:
        """Whether a blank line lies in `data` or across the border to what is held."""
        return _BLANK_LINE(self._edge + data[:3]) is not None or _end(data, 0, b"\r" in data) > 0

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        self._edge = (self._edge + data[-3:])[-3:]
        self._head = _NEVER
        self.overflow = self._held_bytes > self._limit

    def _release(self) -> bytes:
        held = b"".join(self._held)
        if held:
            self._held.clear()
            self._held_bytes, self._edge, self._head = 0, b"", self._known
        return held

    def _event(self, event: bytes) -> bytes:
        """Notice what an event says; the bytes to send for it."""
        end = len(event) - self._tail_bytes
        ordinary = event.startswith(self._known) and event.endswith(self._tail) and event.find(b'"', self._from) == end > self._from
        if ordinary and (not self._guarded or _no_tag(event, self._from, end)):
            self.tokens += 1
            return event if self._same else self._head_sent + event[self._from : end] + self._tail_sent
        data = chunk.payload(event)
        if not data:
            return event
        if data == b"[DONE]":
            self.done = True
            kept = b"" if self.thoughts is None else self.thoughts.closing()
            return kept + event if kept else event
        seen = chunk.read(data)
        return event if seen is None else self._noted(seen, event)

    def _noted(self, seen: chunk.Chunk, event: bytes) -> bytes:
        sent = self._without_usage(seen, event)
        thoughts = self.thoughts
        if thoughts is not None and sent:
            sent = thoughts.put(seen, sent)
            if not thoughts.settled:
                self._head = self._known = _NEVER
        for choice in seen.choices or ():
            emitted = choice.emitted()
            if emitted:
                self.tokens += 1
                self.first = True
            if choice.finish_reason:
                self.finish = choice.finish_reason
            elif len(emitted) == 1 == len(seen.choices or ()) and not seen.usage:
                key, text = emitted[0]
                form = (key, False) if thoughts is None else thoughts.form(choice.index, key)
                if form is not None:
                    self._learn(event, key, text, *form)
        if seen.error is not chunk.ABSENT:
            self.error = True
            self.status = chunk.status(seen.error)
        return sent

    def _without_usage(self, seen: chunk.Chunk, event: bytes) -> bytes:
        """The event without a usage that the caller did not ask for."""
        if isinstance(seen.usage, Counts):
            self.usage = of(seen.usage)
            return event if seen.choices or self.usage_asked else b""
        return chunk.without_null_usage(event) if seen.usage is None and not self.usage_asked else event

    def _learn(self, event: bytes, key: bytes, text: bytes, key_sent: bytes, guarded: bool) -> None:
        """Take an event with one plain, unescaped text as the form of those to come, which are sent with it under `key_sent`."""
        if text[0] != 0x22 or b"\\" in text:
            return
        colon = b'":'
        before, found, after = event.partition(b'"' + key + colon + text)
        if not found:
            colon = b'": '
            before, found, after = event.partition(b'"' + key + colon + text)
        if not found or b'"usage"' in before:
            return
        head, tail = before + found[: -len(text) + 1], b'"' + after
        tail_sent = tail if self.usage_asked else chunk.without_null_usage(tail)
        self._head = self._known = head
        self._from, self._tail, self._tail_bytes, self._tail_sent = len(head), tail, len(tail), tail_sent
        self._head_sent = head if key_sent == key else before + b'"' + key_sent + colon + b'"'
        self._same, self._guarded = tail_sent is tail and key_sent == key, guarded


def _no_tag(data: bytes, start: int, end: int) -> bool:
    """Whether a text has neither a tag's first character nor an escape that could be one."""
    return data.find(b"<", start, end) < 0 and data.find(b"\\", start, end) < 0


def _end(data: bytes, start: int, returns: bool) -> int:
    """Where the event that begins at `start` ends, its blank line included; 0 while it does not."""
    if not returns:
        at = data.find(b"\n\n", start)
        return at + 2 if at >= 0 else 0
    found = _BLANK_LINE(data, start)
    return found.end() if found is not None else 0


def error_event(status: int, code: str, message: str, retry_after_ms: int | None = None) -> bytes:
    """An error after a stream began, in the form OpenAI's clients raise on. No `[DONE]` follows it."""
    extra = {} if retry_after_ms is None else {"retry_after_ms": retry_after_ms}
    return b"data: " + error(status, code, message, None, **extra) + b"\n\n"


def queued_comment(position: int, eta_ms: int) -> bytes:
    """A comment that keeps a waiting stream alive; clients skip it."""
    return b": queued position=%d eta_ms=%d\n\n" % (position, eta_ms)
