"""The chunked transfer coding, decoded strictly and incrementally (RFC 9112, 7.1).

Law: pure; raises CallError. Trailers are checked and dropped: nothing may add a header after the request was judged.
"""

from __future__ import annotations

from typing import Final

from penstock.config import Limits
from penstock.errors import CallError
from penstock.http1 import rules

_HEX = b"0123456789abcdefABCDEF"
_SIZE_DIGITS = 15
_EXTENSION_BYTES = 256
_EXTENSIONS_BYTES = 4_096
_LINE_BYTES = _SIZE_DIGITS + 1 + _EXTENSION_BYTES
_FREE_CHUNKS = 1_024
_CHUNK_BYTES = 16
"""Beyond the free ones, a bounded body's chunks must hold this much on average: one-byte chunks cost far more to read than to send."""

_AT_SIZE: Final = 0
_IN_DATA: Final = 1
_AFTER_DATA: Final = 2
_IN_TRAILER: Final = 3


_SIZES_MAX = 4_096
_sizes: dict[bytes, int] = {}
"""Size lines met before: events of a stream are alike."""


def _learn(line: bytes) -> int:
    """The size that a plain size line says, 0 for any other line."""
    if not line or len(line) > _SIZE_DIGITS or line.translate(None, _HEX):
        return 0
    size = int(line, 16)
    if len(_sizes) < _SIZES_MAX:
        _sizes[line] = size
    return size


def _bad(message: str) -> CallError:
    return CallError(400, "bad_chunk", message)


class Chunks:
    """Feed it bytes; it returns payload. After `done`, `excess` holds what came behind the body."""

    __slots__ = ("_chunks", "_left", "_limits", "_max", "_mode", "_spent", "_tail", "_total", "done", "excess")

    def __init__(self, limits: Limits, max_bytes: int | None = None) -> None:
        self._limits = limits
        self._max = max_bytes
        self._mode = _AT_SIZE
        self._left = 0
        self._tail = b""
        self._total = 0
        self._spent = 0
        self._chunks = 0
        self.done = False
        self.excess = b""

    def feed(self, data: bytes) -> bytes:
        if self._tail:
            data, self._tail = self._tail + data, b""
        elif self._mode == _AT_SIZE:
            # A streamed event is nearly always one whole chunk a read: no list, no loop.
            end = data.find(b"\r\n", 0, 18)
            size = (_sizes.get(data[:end]) or _learn(data[:end])) if end > 0 else 0
            if size and len(data) == end + size + 4 and data.endswith(b"\r\n"):
                if self._max is not None:
                    self._count(size)
                return data[end + 2 : -2]
        parts: list[bytes] = []
        at = 0
        while at >= 0 and not self.done:
            at = self._step(data, at, parts)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _step(self, data: bytes, at: int, parts: list[bytes]) -> int:
        """One element of the coding from `at`: where the next one begins, or -1 when more bytes are needed."""
        if self._mode == _IN_DATA:
            return self._take_data(data, at, parts)
        if self._mode == _AT_SIZE:
            return self._take_size(data, at)
        if self._mode == _IN_TRAILER:
            return self._take_trailer(data, at)
        return self._take_gap(data, at)

    def _take_data(self, data: bytes, at: int, parts: list[bytes]) -> int:
        piece = data[at : at + self._left]
        if piece:
            parts.append(piece)
        self._left -= len(piece)
        if self._left:
            return -1
        self._mode = _AFTER_DATA
        return at + len(piece)

    def _take_gap(self, data: bytes, at: int) -> int:
        gap = data[at : at + 2]
        if gap == b"\r\n":
            self._mode = _AT_SIZE
            return at + 2
        if gap not in (b"", b"\r"):
            raise _bad("A chunk is longer than its size says.")
        self._tail = gap
        return -1

    def _take_size(self, data: bytes, at: int) -> int:
        end = data.find(b"\r\n", at, at + _LINE_BYTES + 2)
        if end < 0:
            self._keep(data, at, _LINE_BYTES + 1)
            return -1
        size = self._size(data[at:end])
        self._count(size)
        self._left = size
        self._mode = _IN_DATA if size else _IN_TRAILER
        return end + 2

    def _keep(self, data: bytes, at: int, longest: int) -> None:
        """Keep an unfinished size line for the next read, unless it can no longer become a good one."""
        line = data[at:]
        if len(line) > longest:
            raise _bad("A chunk's size line is too long.")
        body = line[:-1] if line.endswith(b"\r") else line
        if body:
            self._size(body, False)
        elif line and not body:
            raise _bad("A chunk has no size.")
        self._tail = line

    def _size(self, line: bytes, whole: bool = True) -> int:
        digits, mark, extension = line.partition(b";")
        if not digits or len(digits) > _SIZE_DIGITS or digits.translate(None, _HEX):
            raise _bad("A chunk's size is not a hexadecimal number.")
        if mark:
            if len(extension) > _EXTENSION_BYTES or extension.translate(None, rules.PRINTABLE):
                raise _bad("A chunk extension is too long or holds a control character.")
            if whole:
                self._spent += len(extension) + 1
                if self._spent > _EXTENSIONS_BYTES:
                    raise _bad("Too many chunk extensions.")
        return int(digits, 16)

    def _count(self, size: int) -> None:
        if self._max is None:
            return
        self._total += size
        self._chunks += 1
        if self._total > self._max:
            raise CallError(413, "body_too_large", f"The body is larger than {self._max} bytes.")
        if self._chunks > _FREE_CHUNKS + self._total // _CHUNK_BYTES:
            raise _bad("The body comes in too many tiny chunks.")

    def _take_trailer(self, data: bytes, at: int) -> int:
        """Find the end of the trailer section: an empty line, at once or behind field lines."""
        if data.startswith(b"\r\n", at):
            self._finish(data, at + 2)
            return -1
        end = data.find(b"\r\n\r\n", at)
        section = data[at:] if end < 0 else data[at:end]
        if len(section) > self._limits.headers_bytes:
            raise rules.too_large("The trailers are too large.")
        if end < 0:
            line_ends = section.count(b"\r\n")
            rules.only_printable(section[:-1] if section.endswith(b"\r") else section, line_ends)
            self._tail = section
            return -1
        lines = section.decode("latin-1").split("\r\n")
        rules.only_printable(section, len(lines) - 1)
        if len(lines) > self._limits.headers:
            raise rules.too_large("Too many trailers.")
        rules.fields(lines)
        self._finish(data, end + 4)
        return -1

    def _finish(self, data: bytes, end: int) -> None:
        self.done = True
        self.excess = data[end:]
