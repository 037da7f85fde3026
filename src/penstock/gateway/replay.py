"""A journal fed through a fresh core: the same events must lead to the same actions."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import msgspec

from penstock.core import Core
from penstock.errors import TraceError
from penstock.events import Action, Event
from penstock.journal import SUFFIX, Head, Record, read

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Action]).decode


class Difference(msgspec.Struct, frozen=True):
    """The first event whose actions differ; what follows it would differ by consequence."""

    file: str
    index: int
    """Of the event in its run, from 0."""
    event: Event
    expected: list[Action]
    got: list[Action]


class Replay(msgspec.Struct):
    """What a replay found."""

    runs: int = 0
    events: int = 0
    actions: int = 0
    torn: dict[str, int] = {}
    """Files whose last record was cut short by a killed process -> bytes left out."""
    difference: Difference | None = None


def replay(folder: Path) -> Replay:
    """Replay every run in the folder, up to the first difference. Raises TraceError for what is no journal."""
    if not folder.is_dir():
        raise TraceError("no such folder", file=str(folder))
    paths = sorted(folder.glob(f"*{SUFFIX}"))
    if not paths:
        raise TraceError(f"holds no {SUFFIX} files", file=str(folder))
    result = Replay()
    for _, run in groupby(paths, key=lambda path: path.name.rpartition("-")[0]):
        _replay_run(list(run), result)
        if result.difference is not None:
            break
    return result


def _replay_run(paths: list[Path], result: Replay) -> None:
    result.runs += 1
    core: Core | None = None
    index = 0
    for path, head, records in _segments(paths, result):
        if core is None:
            core = Core(head.config, head.knobs, random.Random(head.seed), head.profiles)
        for record in records:
            got = core.handle(record.event, record.now)
            # Compared as bytes: exact for floats, and NaN equals itself. A whole number is read back from the journal as a float.
            if _encode(got) != _encode(record.actions) and _encode(_decode(_encode(got))) != _encode(record.actions):
                result.difference = Difference(str(path), index, record.event, record.actions, got)
                return
            index += 1
            result.events += 1
            result.actions += len(got)


def _segments(paths: list[Path], result: Replay) -> Iterator[tuple[Path, Head, Iterator[Record]]]:
    for number, path in enumerate(paths):
        try:
            head, records, torn = read(path.read_bytes(), str(path))
        except OSError as error:
            raise TraceError(f"cannot be read: {error.strerror}", file=str(path)) from None
        if head.segment != number:
            raise TraceError(f"is segment {head.segment} of its run; segment {number} is missing", file=str(path))
        if torn and path is not paths[-1]:
            raise TraceError("is cut short, and later segments follow it", file=str(path))
        if torn:
            result.torn[str(path)] = torn
        yield path, head, records
