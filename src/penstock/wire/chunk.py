"""One event of a streamed answer: what it emits, why it ends, what it counts."""

from __future__ import annotations

import re

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from penstock.wire.counts import Counts

ABSENT = Raw()
EMPTY = frozenset((b"", b"null", b'""', b"[]", b"{}"))
_BOM = b"\xef\xbb\xbf"
_LINES = re.compile(rb"\r\n|\n|\r").split
_NULL_USAGE = re.compile(rb',\s*"usage"\s*:\s*null|"usage"\s*:\s*null\s*,').subn
"""Cannot match inside a JSON string, where the quotes would be escaped."""


class Delta(Struct, gc=False):
    """The kinds of output an event may add, as raw JSON."""

    content: Raw = ABSENT
    reasoning_content: Raw = ABSENT
    reasoning: Raw = ABSENT
    thinking: Raw = ABSENT
    refusal: Raw = ABSENT
    tool_calls: Raw = ABSENT
    function_call: Raw = ABSENT


_KINDS = [(name.encode(), name) for name in Delta.__struct_fields__]


class Choice(Struct, gc=False):
    index: int | None = 0
    delta: Delta | None = None
    text: Raw = ABSENT
    finish_reason: str | None = None

    def emitted(self) -> list[tuple[bytes, bytes]]:
        """Key and raw value of what is not empty."""
        found = [(b"text", self.text)] if self.text is not ABSENT else []
        if (delta := self.delta) is not None:
            found += [(key, raw) for key, name in _KINDS if (raw := getattr(delta, name)) is not ABSENT]
        return [(key, text) for key, raw in found if (text := bytes(raw)) not in EMPTY]


class Chunk(Struct, gc=False):
    choices: list[Choice] | None = None
    usage: Counts | UnsetType | None = UNSET
    error: Raw = ABSENT


_CHUNK = msgspec.json.Decoder(Chunk)


def payload(event: bytes) -> bytes:
    """The data of an event, its `data:` lines joined (WHATWG HTML 9.2.6); empty for comments and blank lines."""
    if event.startswith(b"data:") and event.find(b"\n") == len(event) - 2 and b"\r" not in event:
        return event[5:].strip()
    lines = _LINES(event.removeprefix(_BOM))
    return b"\n".join(line[5:] for line in lines if line.startswith(b"data:")).strip()


def read(data: bytes) -> Chunk | None:
    """The chunk in an event's data, or None if it is none: it is then not ours to judge."""
    try:
        return _CHUNK.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None


class _Error(Struct, gc=False):
    code: int | str | None = None


_ERROR = msgspec.json.Decoder(_Error)


def status(error: Raw) -> int:
    """The HTTP status that an error inside a stream names, as SGLang's do; 0 where it names none."""
    try:
        code = _ERROR.decode(error).code
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return 0
    number = int(code) if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) == 3 else code
    return number if isinstance(number, int) and 400 <= number < 600 else 0


def without_null_usage(text: bytes) -> bytes:
    """`text` without its one `"usage":null`; unchanged where there is not exactly one."""
    stripped, found = _NULL_USAGE(b"", text)
    return stripped if found == 1 else text
