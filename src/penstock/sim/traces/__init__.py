"""Traces as lists of arrivals: a literal table of formats, each recognised from the file's first bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from penstock.errors import TraceError
from penstock.sim.arrival import Arrival, cut
from penstock.sim.traces import azure, journal, mooncake, servegen, vtc
from penstock.sim.traces.ask import Ask
from penstock.sim.traces.source import Source, opened


class Format(NamedTuple):
    recognise: Callable[[bytes], bool]
    read: Callable[[Source, Ask], list[Arrival]]
    folder: Callable[[Path, Ask], list[Arrival]] | None = None
    """For a trace that may be a folder of files."""
    mark: str = ""
    """A name pattern that tells such a folder."""


FORMATS: dict[str, Format] = {
    "mooncake": Format(mooncake.recognise, mooncake.read),
    "azure": Format(azure.recognise, azure.read),
    "servegen": Format(servegen.recognise, servegen.read, servegen.read_folder, "chunk-*-trace.csv*"),
    "vtc": Format(vtc.recognise, vtc.read),
    "journal": Format(journal.recognise, journal.read, journal.read_folder, journal.MARK),
}


def read(path: Path, form: str | None, ask: Ask) -> list[Arrival]:
    """The part of a trace that is asked for, in order of time, its clock started at the window's start.

    `form` is a key of FORMATS, or None to recognise it. Raises TraceError: file, line and what to do.
    """
    if form is not None and form not in FORMATS:
        raise TraceError(f"unknown format {form!r}; known: {', '.join(FORMATS)}")
    arrivals = _folder(path, form, ask) if path.is_dir() else _file(path, form, ask)
    inside = cut(arrivals, start_s=ask.start_s, end_s=ask.end_s, speedup=ask.speedup, limit=ask.limit)
    if not inside:
        last = max((arrival.at_s for arrival in arrivals), default=0.0)
        raise TraceError(f"no request is inside the window; the trace runs from 0 to {last:.0f} s", file=str(path))
    return inside


def _file(path: Path, form: str | None, ask: Ask) -> list[Arrival]:
    with opened(path) as source:
        name = form or next((name for name, known in FORMATS.items() if known.recognise(source.head)), None)
        if name is None:
            raise TraceError(f"not a trace that is known ({', '.join(FORMATS)}); give --format", file=str(path))
        return FORMATS[name].read(source, ask)


def _folder(path: Path, form: str | None, ask: Ask) -> list[Arrival]:
    for name, known in FORMATS.items():
        if known.folder and form in (None, name) and any(path.glob(known.mark)):
            return known.folder(path, ask)
    raise TraceError("is a folder without a trace; expected a file, a ServeGen folder or a journal", file=str(path))
