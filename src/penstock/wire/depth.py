"""How deep a JSON text nests, found without building objects, so that no parser behind us meets a text it cannot descend.

Only containers that hold something count: `[]` at the bottom adds no level. Both ways need text that is valid JSON already.
"""

from __future__ import annotations

import re
from itertools import accumulate
from itertools import count as naturals
from operator import sub

import msgspec

SHORT = 1_024
"""Below it plain counting is quicker than searching."""
LINES_MAX = 32_768
"""Lines a text may have when indented: at the interpreter's own depth limit that is some 32 MB, for a few milliseconds."""
NESTS_MAX = STRINGS_MAX = 100_000
"""Containers, strings and keys of a text too long to indent; above it the scan itself would be an attack."""

_STEPS = bytes.maketrans(b"[{]}", b"\x02\x02\x00\x00")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def deeper(text: bytes, limit: int) -> bool:
    """Whether the valid JSON `text` nests deeper than `limit`, or is too large a thicket to tell cheaply."""
    if len(text) < SHORT:
        if text.count(b"{") + text.count(b"[") <= limit:
            return False
    elif few(text, b"{", limit) + few(text, b"[", limit) <= limit:
        return False
    if len(text) < LINES_MAX or sum(seen(text, byte, LINES_MAX) for byte in (b",", b"{", b"[", b"}", b"]")) < LINES_MAX:
        return _indents_past(text, limit)
    return _scans_past(text, limit)


def few(text: bytes, byte: bytes, most: int) -> int:
    """Occurrences of `byte`, counted up to one more than `most`: for bytes that are rare, and then without a copy of the text."""
    at, count = text.find(byte), 0
    while at >= 0 and count <= most:
        count += 1
        at = text.find(byte, at + 1)
    return count


def seen(text: bytes, byte: bytes, most: int) -> int:
    """Occurrences of `byte`, counted up to `most`. Deleting one byte runs at memchr's speed; `bytes.count` is 15 times slower."""
    return len(text) - len(text.replace(byte, b"", most))


def _indents_past(text: bytes, limit: int) -> bool:
    """Indents by one space a level, at C speed: depth is then the longest indent, and raw newlines exist nowhere else."""
    try:
        indented = msgspec.json.format(text, indent=1)
    except RecursionError:
        return True
    return b"\n" + b" " * (limit + 1) in indented


def _scans_past(text: bytes, limit: int) -> bool:
    """The same for texts whose indented form could fill memory: cut the strings out, then sum the brackets up."""
    if seen(text, b"{", NESTS_MAX) + seen(text, b"[", NESTS_MAX) >= NESTS_MAX:
        return True
    plain = text.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in text else text
    if seen(plain, b'"', 2 * STRINGS_MAX + 1) > 2 * STRINGS_MAX:
        return True
    outside = re.sub(rb"\[\s*\]|\{\s*\}", b"", b'"'.join(plain.split(b'"')[::2]))
    steps = outside.translate(_STEPS, _NOT_BRACKETS)
    return max(map(sub, accumulate(steps), naturals(1)), default=0) > limit
