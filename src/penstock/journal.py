"""The journal's format: everything that went into the core and came out of it, as bytes.

A journal is a folder of segments, `RUN-NNNNN.journal`, in order of name. A segment is `MAGIC` and then records, each a length (4 bytes,
big-endian) and that many bytes of msgpack: first a Head, then `[now, event, actions]`. A run's later segments go on where the one before
ended; only its last record may be torn, by a process that was killed. No key and no prompt ever comes near it: events hold neither.

Law: pure. Files' contents come in as bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from penstock import __version__
from penstock.config import Config
from penstock.errors import TraceError
from penstock.events import Action, Event
from penstock.facts import Profile
from penstock.knobs import Knobs

MAGIC = b"penstock journal 1\n"
SUFFIX = ".journal"
LENGTH_BYTES = 4
RECORD_BYTES = 16 << 20
"""More than any record takes; a longer one is a damaged length."""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a run started with: enough to build the same core again."""

    config: Config
    knobs: Knobs
    seed: int
    profiles: dict[str, Profile] = {}
    version: str = __version__
    segment: int = 0


class Record(msgspec.Struct, frozen=True, array_like=True):
    """One event, when it happened (seconds, monotonic within a run) and the actions it led to."""

    now: float
    event: Event
    actions: list[Action]


_encoder = msgspec.msgpack.Encoder()
_head = msgspec.msgpack.Decoder(Head)
_version = msgspec.msgpack.Decoder(dict[str, Any])
_record = msgspec.msgpack.Decoder(Record)
_BROKEN = (msgspec.MsgspecError, UnicodeDecodeError)
"""What decoding raises for bytes that no journal wrote."""


def frame(record: Head | tuple[float, Event, Sequence[Action]]) -> bytes:
    """A record's bytes, its length before them."""
    data = _encoder.encode(record)
    return len(data).to_bytes(LENGTH_BYTES, "big") + data


def without_secrets(config: Config) -> Config:
    """The configuration as a head may hold it: tenants and their limits, but no digest of a key."""
    keys = tuple(msgspec.structs.replace(key, sha256=None) for key in config.keys)
    return msgspec.structs.replace(config, keys=keys)


def read(data: bytes, file: str) -> tuple[Head, Iterator[Record], int]:
    """A segment's head, its whole records, and the bytes of a torn one at its end (0: none). Raises TraceError."""
    if not data.startswith(MAGIC):
        raise TraceError("is not a journal of this format", file=file)
    spans, torn = _spans(data)
    if not spans:
        raise TraceError("ends before its head", file=file)
    if torn:
        _check_torn(data[len(data) - torn :], len(data) - torn, file)
    return _decode_head(data[spans[0][0] : spans[0][1]], file), _decode(data, spans[1:], file), torn


def _spans(data: bytes) -> tuple[list[tuple[int, int]], int]:
    spans = []
    at, size = len(MAGIC), len(data)
    while at + LENGTH_BYTES <= size:
        start = at + LENGTH_BYTES
        end = start + int.from_bytes(data[at:start], "big")
        if end > size:
            break
        spans.append((start, end))
        at = end
    return spans, size - at


def _check_torn(rest: bytes, at: int, file: str) -> None:
    """What a kill left of a record is a part of one record; anything else after a length that leads nowhere is damage."""
    length = int.from_bytes(rest[:LENGTH_BYTES], "big")
    if len(rest) <= LENGTH_BYTES:
        return
    cut = False
    try:
        msgspec.msgpack.decode(rest[LENGTH_BYTES:])
    except _BROKEN as error:
        cut = "truncated" in str(error)
    if not cut or length > RECORD_BYTES:
        raise TraceError(f"is damaged at byte {at}: {len(rest)} bytes from there on cannot be read", file=file)


def _decode_head(data: bytes, file: str) -> Head:
    try:
        version = _version.decode(data).get("version")
        if version != __version__:
            raise TraceError(f"was written by version {version}; this is {__version__}, whose decisions may differ", file=file)
        return _head.decode(data)
    except _BROKEN as error:
        raise TraceError(f"has a broken head: {error}", file=file) from None


def _decode(data: bytes, spans: list[tuple[int, int]], file: str) -> Iterator[Record]:
    view = memoryview(data)
    for index, (start, end) in enumerate(spans):
        try:
            yield _record.decode(view[start:end])
        except _BROKEN as error:
            raise TraceError(f"record {index} is broken: {error}", file=file) from None
