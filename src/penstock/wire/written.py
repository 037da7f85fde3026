"""What the events of a stream say, as text: of an answer that one engine began and another is to go on with."""

from __future__ import annotations

import re

import msgspec
from msgspec import Raw

from penstock.wire import chunk

_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_NEVER = b"\xff"
_ENDS = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)").split


class Written:
    """Takes whole events, many at a time. They differ in little but their text, so the bytes around the last one's are kept."""

    __slots__ = ("_head", "_into", "_tail", "content", "exact", "frame", "size", "thought_tokens", "thoughts", "tokens")

    def __init__(self) -> None:
        self.thoughts: list[bytes] = []
        """As the insides of JSON strings, like `content`."""
        self.content: list[bytes] = []
        self.tokens = self.thought_tokens = 0
        """Events that added text, all and those of them that are thoughts."""
        self.size = 0
        """Bytes of text."""
        self.frame: dict[str, Raw] = {}
        """The first event's fields."""
        self.exact = True
        """There was nothing but text, thoughts before all else."""
        self._head = self._tail = _NEVER
        self._into = self.content

    def add(self, data: bytes) -> None:
        if self._alike(data):
            return
        head, tail, into = self._head, self._tail, self._into
        thoughts = self.thoughts
        for event in data.split(b"\n\n") if b"\r" not in data else _ENDS(data):
            if event.startswith(head) and event.endswith(tail) and b'"' not in (text := event[len(head) : len(event) - len(tail)]) and text:
                into.append(text)
                self.tokens += 1
                self.thought_tokens += into is thoughts
                self.size += len(text)
            elif event:
                self._look(event)
                head, tail, into = self._head, self._tail, self._into
        if len(self.content) > 1:
            self.content[:] = [b"".join(self.content)]
        if len(self.thoughts) > 1:
            self.thoughts[:] = [b"".join(self.thoughts)]

    def _alike(self, data: bytes) -> bool:
        """Whether all events are as the last one was: what stands between their texts is the same, and taken out at once."""
        head, end = self._head, self._tail + b"\n\n"
        if not data.startswith(head) or not data.endswith(end):
            return False
        parts = data[len(head) : len(data) - len(end)].split(end + head)
        text = b"".join(parts)
        if b'"' in text or b"" in parts:
            return False
        self._into.append(text)
        self.tokens += len(parts)
        self.thought_tokens += len(parts) if self._into is self.thoughts else 0
        self.size += len(text)
        return True

    def texts(self) -> tuple[str, str] | None:
        """Thoughts and content; None where they cannot be told, such as half a character."""
        if not self.exact:
            return None
        try:
            thoughts, content = (msgspec.json.decode(b'"%b"' % b"".join(parts), type=str) for parts in (self.thoughts, self.content))
        except msgspec.MsgspecError:
            return None
        return thoughts, content

    def _look(self, event: bytes) -> None:
        data = chunk.payload(event + b"\n\n")
        if not data or data == b"[DONE]":
            return
        seen = chunk.read(data)
        if seen is None:
            self.exact = False
            return
        if not self.frame:
            self.frame = {key: Raw(bytes(value)) for key, value in _OBJECT.decode(data).items()}
        found = [one for choice in seen.choices or () for one in choice.emitted()]
        for key, text in found:
            self._take(key, text)
        self._head = self._tail = _NEVER
        if len(found) == 1 and self.exact:
            self._learn(event, *found[0])

    def _take(self, key: bytes, text: bytes) -> None:
        into = self.thoughts if key == b"reasoning_content" else self.content
        if key not in (b"content", b"text", b"reasoning_content") or text[0] != 0x22 or (into is self.thoughts and self.content):
            self.exact = False
            return
        if into is self.thoughts:
            self.thought_tokens += 1
        self.tokens += 1
        self.size += len(text) - 2
        into.append(text[1:-1])

    def _learn(self, event: bytes, key: bytes, text: bytes) -> None:
        """The same bytes around another string without a quote are another event of this kind."""
        before, found, after = event.partition(b'"' + key + b'":' + text)
        if not found:
            before, found, after = event.partition(b'"' + key + b'": ' + text)
        if found:
            self._head, self._tail = before + found[: len(found) - len(text) + 1], b'"' + after
            self._into = self.thoughts if key == b"reasoning_content" else self.content
