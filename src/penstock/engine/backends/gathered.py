"""A whole answer put together from a stream.

llama.cpp notices that a caller has left only while it streams; a whole answer it would compute to its end. So it is always asked for a
stream, and who wants the answer whole gets it from here. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Raw

_OBJECTS = {"chat.completion.chunk": "chat.completion"}
_body = msgspec.json.Decoder(dict[str, Raw])


def as_stream(body: bytes) -> bytes | None:
    """The request with a stream for its answer; None where it wants one anyway, or is none that we can read."""
    try:
        fields = _body.decode(body)
        if bytes(fields.get("stream", Raw(b"false"))) == b"true":
            return None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return msgspec.json.encode({**fields, "stream": True, "stream_options": {"include_usage": True}})


class Gathered:
    """Takes a stream's bytes; `whole` is the answer in one piece, once all of it is there."""

    def __init__(self) -> None:
        self._rest = b""
        self._shown: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self.error: Any = None
        """What went wrong inside the stream, as llama.cpp said it."""

    def feed(self, data: bytes) -> None:
        *events, self._rest = (self._rest + data).split(b"\n\n")
        for event in events:
            for chunk in _chunks(event):
                self._take(chunk)

    def whole(self) -> bytes:
        choices = [self._choices[index] for index in sorted(self._choices)]
        shown = self._shown | {"object": _OBJECTS.get(self._shown.get("object", ""), self._shown.get("object"))}
        return msgspec.json.encode({"choices": choices} | shown)

    def _take(self, chunk: dict[str, Any]) -> None:
        if "error" in chunk:
            self.error = chunk["error"]
            return
        for piece in chunk.pop("choices", ()):
            self._add(self._choices.setdefault(piece.get("index", 0), {}), piece)
        self._shown |= chunk

    def _add(self, choice: dict[str, Any], piece: dict[str, Any]) -> None:
        delta = piece.pop("delta", None)
        if delta is not None:
            message = choice.setdefault("message", {"role": "assistant", "content": None})
            for call in delta.pop("tool_calls", None) or ():
                _join_call(message.setdefault("tool_calls", []), call)
            for key, value in delta.items():
                _join(message, key, value)
        for key, value in piece.items():
            _join(choice, key, value)


def _chunks(event: bytes) -> Iterator[dict[str, Any]]:
    for line in event.split(b"\n"):
        if line.startswith(b"data: {"):
            yield msgspec.json.decode(line[6:])


def _join(whole: dict[str, Any], key: str, value: Any) -> None:
    """Text is added to text, lists (of logprobs) to lists; anything else is what was said last."""
    before = whole.get(key)
    if value is None:
        whole.setdefault(key, None)
    elif isinstance(value, str) and isinstance(before, str) and key not in ("role", "finish_reason"):
        whole[key] = before + value
    elif isinstance(value, list) and isinstance(before, list):
        before.extend(value)
    elif isinstance(value, dict) and isinstance(before, dict):
        for name, inner in value.items():
            _join(before, name, inner)
    else:
        whole[key] = value


def _join_call(calls: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    """Arguments come in pieces; what else a tool call has comes once."""
    index = piece.pop("index", len(calls))
    while len(calls) <= index:
        calls.append({})
    call = calls[index]
    function = piece.pop("function", {})
    call.update(piece)
    into = call.setdefault("function", {"arguments": ""})
    into["arguments"] += function.pop("arguments", None) or ""
    into.update(function)
