"""The gateway's own journal as a trace: what callers sent, and how long the answers came out.

A request whose answer's length is not known (refused, failed, left, or usage not told) is demand all the same: it gets the
median of the known ones. Runs in one folder follow each other, a second apart. Several segments make a run.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from statistics import median_low

from penstock import journal
from penstock.events import Arrived, Finished
from penstock.facts import Request
from penstock.sim.arrival import Arrival
from penstock.sim.traces.ask import Ask
from penstock.sim.traces.numbers import nothing
from penstock.sim.traces.source import Source, opened

MARK = f"*{journal.SUFFIX}*"
OUTPUT_TOKENS = 256
"""Where no answer's length is known."""
PAUSE_S = 1.0


class Run:
    """One run of a gateway, as its segments are read."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, Request]] = []
        self.outputs: dict[int, int] = {}

    def take(self, source: Source) -> None:
        _, records, _ = journal.read(source.stream.read(), source.name)
        for record in records:
            event = record.event
            if isinstance(event, Arrived):
                self.asked.append((record.now, event.request))
            elif isinstance(event, Finished) and event.output_tokens > 0:
                self.outputs[event.id] = event.output_tokens

    def arrivals(self, start_s: float) -> list[Arrival]:
        usual = median_low(self.outputs.values()) if self.outputs else OUTPUT_TOKENS
        origin = self.asked[0][0] if self.asked else 0.0
        return [_arrival(now - origin + start_s, request, self.outputs.get(request.id, usual)) for now, request in self.asked]


def recognise(head: bytes) -> bool:
    return head.startswith(journal.MAGIC)


def read(source: Source, ask: Ask) -> list[Arrival]:
    """One segment. Raises TraceError for what is no journal."""
    run = Run()
    run.take(source)
    if not run.asked:
        raise nothing(source)
    return run.arrivals(0.0)


def read_folder(folder: Path, ask: Ask) -> list[Arrival]:
    """All runs of a folder, segments plain or packed."""
    arrivals: list[Arrival] = []
    for _, paths in groupby(sorted(folder.glob(MARK)), key=lambda path: path.name.rpartition("-")[0]):
        run = Run()
        for path in paths:
            with opened(path) as source:
                run.take(source)
        arrivals += run.arrivals(arrivals[-1].at_s + PAUSE_S if arrivals else 0.0)
    return arrivals


def _arrival(at_s: float, request: Request, output_tokens: int) -> Arrival:
    return Arrival(
        at_s=at_s,
        prompt_tokens=max(1, request.prompt_tokens),
        output_tokens=output_tokens,
        blocks=request.blocks,
        tenant=request.tenant,
        session=request.session,
        model=request.model,
        max_tokens=request.max_tokens,
        stream=request.stream,
        metadata=request.metadata,
    )
