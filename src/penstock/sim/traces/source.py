"""A trace file as lines or bytes, whatever it is packed in. Packing is recognised by magic bytes, never by name."""

from __future__ import annotations

import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from penstock.errors import TraceError

PEEK_BYTES = 65_536
LINE_BYTES = 16_777_216
"""Longest line read: Mooncake rows of a million tokens stay under 100 KB, so a longer one means a file of another kind."""
PACKED_DEPTH = 3
"""Packings inside packings that are followed."""


class Source:
    """An open file, unpacked as it is read. `head` is its first unpacked bytes; lines are counted for messages."""

    def __init__(self, path: Path, stream: io.BufferedReader) -> None:
        self.name = str(path)
        self.line = 0
        self._stream = stream
        self.head = peek(stream)

    @property
    def stream(self) -> IO[bytes]:
        return self._stream

    def lines(self) -> Iterator[bytes]:
        """Lines that are not blank. `line` is the number of the last one given, from 1."""
        while raw := self._stream.readline(LINE_BYTES):
            self.line += 1
            if len(raw) == LINE_BYTES:
                raise self.error("line is longer than 16 MiB; this is not a trace")
            if row := raw.strip():
                yield row

    def text(self) -> Iterator[str]:
        """The same lines as text, without a byte-order mark."""
        for row in self.lines():
            try:
                yield row.decode("utf-8-sig" if self.line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise self.error("not UTF-8 text; this is not a trace") from error

    def error(self, message: str) -> TraceError:
        return TraceError(message, file=self.name, line=self.line)


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """`path` open and unpacked. Raises TraceError when it is missing, unreadable, empty, truncated or corrupt."""
    source: Source | None = None
    try:
        with path.open("rb") as file:
            source = Source(path, unpacked(file))
            if not source.head:
                raise TraceError("is empty; give a trace with at least one request", file=str(path))
            yield source
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        line = source.line if source else 0
        raise TraceError("the packed file is truncated or corrupt; fetch it again", file=str(path), line=line) from error
    except FileNotFoundError as error:
        raise TraceError("no such file", file=str(path)) from error
    except OSError as error:
        raise TraceError(f"cannot be read: {error.strerror or error}", file=str(path)) from error


def unpacked(stream: io.BufferedReader) -> io.BufferedReader:
    for _ in range(PACKED_DEPTH):
        magic = stream.peek(6)[:6]
        if magic.startswith(b"\x1f\x8b"):
            stream = io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=stream)), PEEK_BYTES)
        elif magic == b"\xfd7zXZ\x00":
            stream = io.BufferedReader(cast(io.RawIOBase, lzma.LZMAFile(stream)), PEEK_BYTES)  # noqa: SIM115 - closed with the file below it
        else:
            break
    return stream


def peek(stream: io.BufferedReader) -> bytes:
    return stream.peek(PEEK_BYTES)[:PEEK_BYTES]
