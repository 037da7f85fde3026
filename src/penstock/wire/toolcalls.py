"""Tool calls in answers and in the messages of later requests: what names them, and what tells whether two are the same.

Ids alone do not: some models number their calls anew in each conversation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from msgspec import Raw, Struct

from penstock.wire.chunk import EMPTY

ID_CHARS = 256
"""A longer id is nobody's."""
MOST = 128
"""Calls of one message that are looked at."""


class Function(Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class ToolCall(Struct, gc=False):
    """A whole one, or what an event adds to the one of that index."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


_CALLS = msgspec.json.Decoder(list[ToolCall] | None)
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_ELEMENTS = msgspec.json.Decoder(list[Raw])


def read(raw: Raw | bytes) -> list[ToolCall]:
    """Those in a message's or delta's `tool_calls`; none in what is not a list of them."""
    try:
        return (_CALLS.decode(raw) or [])[:MOST]
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return []


def meaning(call: ToolCall) -> bytes:
    """What is called with what: the same for arguments that a client has read and written again."""
    function = call.function or Function()
    arguments = (function.arguments or "").encode(errors="replace")
    try:
        arguments = msgspec.json.encode(msgspec.json.decode(arguments), order="deterministic")
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        pass
    return (function.name or "").encode(errors="replace") + b"\0" + arguments


class Gathered:
    """The tool calls of a streamed answer, from the events that add to them."""

    __slots__ = ("_calls", "bytes")

    def __init__(self) -> None:
        self._calls: dict[int, ToolCall] = {}
        self.bytes = 0

    def add(self, raw: Raw) -> None:
        for at, part in enumerate(read(raw)):
            index = at if part.index is None else part.index
            call = self._calls.get(index)
            if call is None:
                if len(self._calls) >= MOST:
                    continue
                call = self._calls[index] = ToolCall(index, None, Function("", ""))
            self.bytes += len(raw)
            call.id = part.id or call.id
            if part.function is not None and call.function is not None:
                call.function.name = (call.function.name or "") + (part.function.name or "")
                call.function.arguments = (call.function.arguments or "") + (part.function.arguments or "")

    def all(self) -> list[ToolCall]:
        return list(self._calls.values())


def put_back(body: bytes, find: Callable[[Iterable[ToolCall]], str | None]) -> bytes:
    """A request that was read, with `reasoning_content` beside the tool calls of the assistant where `find` knows it and the client
    left it out; the same object where nothing is put in.
    """
    fields = _OBJECT.decode(body)
    messages = _ELEMENTS.decode(fields["messages"])
    changed = False
    for at, raw in enumerate(messages):
        if b'"tool_calls"' in bytes(raw) and (text := _missing(raw, find)) is not None:
            message = _OBJECT.decode(raw)
            message["reasoning_content"] = Raw(msgspec.json.encode(text))
            messages[at] = Raw(msgspec.json.encode(message))
            changed = True
    if not changed:
        return body
    fields["messages"] = Raw(msgspec.json.encode(messages))
    return msgspec.json.encode(fields)


def _missing(raw: Raw, find: Callable[[Iterable[ToolCall]], str | None]) -> str | None:
    try:
        message = _OBJECT.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    if bytes(message.get("role", b"")) != b'"assistant"' or bytes(message.get("reasoning_content", b"")) not in EMPTY:
        return None
    return find(read(message.get("tool_calls", b"")))
