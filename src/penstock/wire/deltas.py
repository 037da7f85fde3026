"""Writing a streamed event, or a message, again with its thoughts in DeepSeek's field. What does not change keeps its text."""

from __future__ import annotations

import re
from typing import Final

import msgspec
from msgspec import Raw

from penstock.wire import chunk

FIELD: Final = "reasoning_content"
KEY: Final = b"reasoning_content"
OTHERS: Final = ("reasoning", "thinking")
"""What other engines call it: vLLM from 0.11 on and OpenRouter; Ollama."""

NULL, _ZERO = Raw(b"null"), Raw(b"0")
_TEXT = msgspec.json.Decoder(str)
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_OBJECTS = msgspec.json.Decoder(list[dict[str, Raw]])
_ENDING = re.compile(rb"[\r\n]*\Z")
_LINES = re.compile(rb"\r\n|\n|\r").split


def text_of(raw: Raw) -> str:
    """A JSON string's text; empty for anything else."""
    if len(raw) < 3 or memoryview(raw)[0] != 0x22:
        return ""
    try:
        return _TEXT.decode(raw)
    except (msgspec.MsgspecError, UnicodeError):
        return ""


def rename(message: dict[str, Raw]) -> bool:
    """Give the thoughts of a message or delta DeepSeek's name; whether they had another."""
    if text_of(message.get(FIELD, NULL)):
        return False
    for name in OTHERS:
        if text_of(message.get(name, NULL)):
            message[FIELD] = message.pop(name)
            return True
    return False


def under_own_name(event: bytes, seen: chunk.Chunk) -> bytes:
    """The event with another engine's field under DeepSeek's name."""
    for choice in seen.choices or ():
        delta = choice.delta
        if delta is None or text_of(delta.reasoning_content):
            continue
        name, raw = (b"reasoning", delta.reasoning) if text_of(delta.reasoning) else (b"thinking", delta.thinking)
        if text_of(raw) and delta.reasoning_content is not chunk.ABSENT:
            return _renamed(event)
        if text_of(raw):
            for colon in (b'":', b'": '):
                event = event.replace(b'"' + name + colon + bytes(raw), b'"' + KEY + colon + bytes(raw), 1)
    return event


def _renamed(event: bytes) -> bytes:
    """The same where both names are there."""
    fields, choices = _chunk(event)
    for choice in choices:
        delta = _delta(choice)
        if rename(delta):
            choice["delta"] = Raw(msgspec.json.encode(delta))
    return _written(event, fields, choices)


def edited(event: bytes, edits: list[tuple[str, str] | None]) -> bytes:
    """The event with thoughts and answer apart: thoughts first, in an event of their own where both are there, as DeepSeek has it."""
    fields, choices = _chunk(event)
    first = b""
    empty = bytes(fields.get("usage", NULL)) == b"null"
    for choice, edit in zip(choices, edits, strict=True):
        if edit is None:
            empty = False
            continue
        thought, text = edit
        delta, ended = _delta(choice), bytes(choice.get("finish_reason", NULL)) != b"null"
        given = delta.pop("content", None)
        if thought and (text or ended or _kinds(delta)):
            first += made(event, choice.get("index", _ZERO), thought, "")
        elif thought:
            delta[FIELD] = Raw(msgspec.json.encode(thought))
        if text or (given is not None and delta and FIELD not in delta):
            delta["content"] = Raw(msgspec.json.encode(text))
        choice["delta"] = Raw(msgspec.json.encode(delta))
        empty = empty and not delta and not ended
    return first if empty else first + _written(event, fields, choices)


def made(event: bytes, index: int | Raw, thought: str, text: str) -> bytes:
    """An event like `event` that adds thoughts and text to one choice."""
    out = b""
    for name, value in ((FIELD, thought), ("content", text)):
        if value:
            fields, _ = _chunk(event)
            fields.pop("usage", None)
            delta = {name: value}
            out += _data(fields, [{"index": index, "delta": delta, "finish_reason": None}]) + b"\n\n"
    return out


def _chunk(event: bytes) -> tuple[dict[str, Raw], list[dict[str, Raw]]]:
    fields = _OBJECT.decode(chunk.payload(event))
    return fields, _OBJECTS.decode(fields["choices"])


def _delta(choice: dict[str, Raw]) -> dict[str, Raw]:
    raw = choice.get("delta", NULL)
    return {} if bytes(raw) == b"null" else _OBJECT.decode(raw)


def _kinds(delta: dict[str, Raw]) -> bool:
    """Whether a delta has output beside its content."""
    return any(name != "role" and bytes(raw) not in chunk.EMPTY for name, raw in delta.items())


def _written(event: bytes, fields: dict[str, Raw], choices: list[dict[str, Raw]]) -> bytes:
    """The event with other data: its other lines, and how it ends, stay."""
    lines = [line for line in _LINES(event.removeprefix(b"\xef\xbb\xbf")) if line and not line.startswith(b"data:")]
    ending = _ENDING.search(event)
    return b"".join([line + b"\n" for line in lines]) + _data(fields, choices) + (ending[0] if ending else b"")


def _data(fields: dict[str, Raw], choices: object) -> bytes:
    return b"data: " + msgspec.json.encode(fields | {"choices": Raw(msgspec.json.encode(choices))})
