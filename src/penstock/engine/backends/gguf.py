"""What the head of a GGUF file says of its model, read without loading it.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import BinaryIO

import msgspec

from penstock.errors import PenstockError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
TEXT_BYTES = 1 << 20
"""No single text of interest is longer."""
ENTRIES = 1 << 20
"""No head has more entries or tensors."""
NESTING = 4

_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_ODD = re.compile(r"[^A-Za-z0-9._:@+/-]+")

Value = str | int | float | bool | None


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model in a file."""

    path: Path
    name: str
    """What callers ask for: as its metadata say, else as the file is called."""
    stem: str
    """As the file is called."""
    architecture: str
    context: int
    """Tokens it was made for; 0 where it does not say."""
    bytes: int


def read(path: Path) -> Model:
    """The model in the file. Raises PenstockError, in one line, for what is no whole GGUF file."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            said = _Head(path, file, size).read()
    except FileNotFoundError:
        raise PenstockError(f"{path}: there is no such file; --model takes the path of a GGUF file") from None
    except IsADirectoryError:
        raise PenstockError(f"{path} is a folder; --model takes the path of a GGUF file in it") from None
    except OSError as problem:
        raise PenstockError(f"{path}: cannot be read: {problem.strerror}") from None
    architecture = str(said.get("general.architecture") or "unknown")
    stem = _named(path.name.removesuffix(".gguf")) or "model"
    context = said.get(f"{architecture}.context_length")
    return Model(
        path=path,
        name=_named(str(said.get("general.name") or "")) or stem,
        stem=stem,
        architecture=architecture,
        context=context if isinstance(context, int) and context > 0 else 0,
        bytes=size,
    )


def _named(text: str) -> str:
    """A name that needs no quotes in a request, a shell or a configuration."""
    return _ODD.sub("-", text.strip()).strip("-")[:128]


class _Head:
    """The head of one file, read from its start."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self._path, self._file, self._size = path, file, size

    def read(self) -> dict[str, Value]:
        if self._take(4) != MAGIC:
            raise PenstockError(f"{self._path} is not a GGUF file; models for llama.cpp end in .gguf")
        version = self._number("<I")
        if version not in VERSIONS:
            raise PenstockError(f"{self._path}: GGUF version {version} cannot be read, only {' and '.join(map(str, VERSIONS))}")
        tensors, entries = self._count(), self._count()
        found: dict[str, Value] = {}
        for _ in range(entries):
            key = self._text()
            found[key] = self._value(self._number("<I"), 0)
        last = 0
        for _ in range(tensors):
            self._text()
            self._skip(8 * self._count(NESTING) + 4)
            last = max(last, self._number("<Q"))
        if self._file.tell() + last > self._size:
            raise self._cut()
        return found

    def _value(self, kind: int, depth: int) -> Value:
        """A value, or None for an array: those are passed over."""
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            form = _NUMBERS.get(kind)
            if form is None:
                raise self._broken()
            value: int | float | bool = struct.unpack(form, self._take(struct.calcsize(form)))[0]
            return value
        inner, count = self._number("<I"), self._number("<Q")
        if inner in _NUMBERS:
            self._skip(count * struct.calcsize(_NUMBERS[inner]))
        elif inner not in (_STRING, _ARRAY) or depth >= NESTING or count > self._size:
            raise self._broken()
        else:
            for _ in range(count):
                if inner == _STRING:
                    self._skip(self._number("<Q"))
                else:
                    self._value(inner, depth + 1)
        return None

    def _text(self) -> str:
        length = self._number("<Q")
        if length > TEXT_BYTES:
            raise self._broken()
        return self._take(length).decode("utf-8", "replace")

    def _number(self, form: str) -> int:
        value: int = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return value

    def _count(self, most: int = ENTRIES) -> int:
        count = self._number("<I" if most == NESTING else "<Q")
        if count > most:
            raise self._broken()
        return count

    def _take(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) < length:
            raise self._cut() if self._file.tell() >= 4 else PenstockError(f"{self._path} is not a GGUF file; it is too short to be one")
        return data

    def _skip(self, length: int) -> None:
        if self._file.tell() + length > self._size:
            raise self._cut()
        self._file.seek(length, 1)

    def _cut(self) -> PenstockError:
        return PenstockError(f"{self._path} is cut off at {self._size:,} bytes; download it again")

    def _broken(self) -> PenstockError:
        return PenstockError(f"{self._path} is damaged: its head makes no sense; download it again")
