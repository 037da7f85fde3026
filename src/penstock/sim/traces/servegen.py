"""ServeGen's production clients, and arrivals made from them.

Source: alibaba/ServeGen. A folder or a tar file holds two files a client: `chunk-N-trace.csv` with rows of
t, rate, CV, distribution (Gamma or Weibull) and its shape and scale, one a window; `chunk-N-dataset.json` with
t -> PDFs of input and output tokens, each a mapping written as text, `{}` where the client was silent.

A window of a client holds `rate x length` arrivals. Their gaps are drawn from its distribution, scaled to fill the window,
and turned by a random phase: the count is the recorded one and no edge of the window is special (a renewal process started
at the edge would put (CV^2 - 1) / 2 arrivals too many into each window, 40 of them at a CV of 9). Lengths are drawn
independently. Each client and window has its own random stream, so a window is the same whatever else is read.
"""

from __future__ import annotations

import re
import tarfile
from bisect import bisect_left, bisect_right
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import IO, Any

import msgspec

from penstock.errors import TraceError
from penstock.sim.arrival import Arrival
from penstock.sim.gaps import gaps
from penstock.sim.traces.ask import Ask
from penstock.sim.traces.numbers import real
from penstock.sim.traces.source import Source, opened

MEMBER = re.compile(r"(?:^|/)chunk-(\d+)-(trace\.csv|dataset\.json)$")
MEMBER_BYTES = 256_000_000
WINDOW_S = 600.0
"""Length of a client's last window; the others end where the next begins."""
RATE_MAX = 1e6


class Span(msgspec.Struct, frozen=True):
    """One client's arrivals over one window."""

    start_s: float
    length_s: float
    rate: float
    kind: str
    shape: float


class Lengths(msgspec.Struct, frozen=True):
    """A PDF of token counts, ready to draw from."""

    values: list[int]
    cumulated: list[float]

    def draw(self, rng: Random) -> int:
        at = bisect_left(self.cumulated, rng.random() * self.cumulated[-1])
        return max(1, self.values[min(at, len(self.values) - 1)])


class Client(msgspec.Struct):
    spans: list[Span] = []
    starts: list[float] = []
    """When each pair of PDFs comes into use."""
    prompts: list[Lengths] = []
    outputs: list[Lengths] = []


def recognise(head: bytes) -> bool:
    return head[257:262] == b"ustar"


def read(source: Source, ask: Ask) -> list[Arrival]:
    """Arrivals of all clients in a tar file, inside the window asked for. Raises TraceError naming the member and line."""
    clients: dict[int, Client] = {}
    try:
        with tarfile.open(fileobj=source.stream, mode="r|") as tar:
            for member in tar:
                found = MEMBER.search(member.name)
                if not (found and member.isfile()):
                    continue
                if member.size > MEMBER_BYTES:
                    raise TraceError(f"{member.name} is larger than {MEMBER_BYTES:,} bytes", file=source.name)
                file = tar.extractfile(member)
                take(clients, found, file.read() if file else b"", f"{source.name}/{member.name}")
    except tarfile.TarError as error:
        raise TraceError(f"the tar file is truncated or corrupt ({error}); fetch it again", file=source.name) from error
    return generate(clients, ask, source.name)


def read_folder(folder: Path, ask: Ask) -> list[Arrival]:
    """The same from a folder, files in it plain or packed."""
    clients: dict[int, Client] = {}
    for path in sorted(folder.iterdir()):
        if found := MEMBER.search(path.name.removesuffix(".gz").removesuffix(".xz")):
            with opened(path) as source:
                take(clients, found, _all(source.stream), str(path))
    return generate(clients, ask, str(folder))


def take(clients: dict[int, Client], found: re.Match[str], content: bytes, name: str) -> None:
    client = clients.setdefault(int(found[1]), Client())
    if found[2] == "trace.csv":
        client.spans = spans(content, name)
    else:
        client.starts, client.prompts, client.outputs = datasets(content, name)


def spans(content: bytes, name: str) -> list[Span]:
    """The windows of one client, silent ones left out."""
    rows: list[tuple[float, float, float, str, str]] = []
    for number, line in enumerate(content.decode("utf-8-sig", "replace").splitlines(), 1):
        parts = [part.strip() for part in line.split(",")]
        if not line.strip() or (number == 1 and parts[0].isalpha()):
            continue
        place = MemberLine(name, number)
        if len(parts) != 6:
            raise place.error(f"{len(parts)} columns; expected t, rate, CV, distribution and its two parameters")
        start, rate, cv = (real(part, field, place) for part, field in zip(parts, ("t", "rate", "CV"), strict=False))
        if rate > RATE_MAX:
            raise place.error(f"rate is {rate:g} requests a second; expected at most {RATE_MAX:g}")
        rows.append((start, rate, shape(parts, cv, place) if rate else 1.0, parts[3] or "Gamma", name))
    rows.sort()
    ends = [row[0] for row in rows[1:]]
    ends.append(rows[-1][0] + WINDOW_S if rows else 0.0)
    return [
        Span(start, end - start, rate, kind, form)
        for (start, rate, form, kind, _), end in zip(rows, ends, strict=True)
        if rate and end > start
    ]


def shape(parts: list[str], cv: float, place: MemberLine) -> float:
    """The distribution's shape; its scale follows from the rate. Without one, a Gamma's from the CV."""
    if parts[3] not in ("Gamma", "Weibull", ""):
        raise place.error(f"distribution {parts[3]!r}; expected Gamma or Weibull")
    given = real(parts[4], "shape", place) if parts[3] else 0.0
    return min(max(given or 1.0 / max(cv, 1e-3) ** 2, 1e-3), 1e6)


def datasets(content: bytes, name: str) -> tuple[list[float], list[Lengths], list[Lengths]]:
    """Start times with their PDFs of prompt and output lengths; windows in which the client was silent are left out."""
    place = MemberLine(name, 0)
    try:
        windows: dict[str, dict[str, Any]] = msgspec.json.decode(content, type=dict[str, dict[str, Any]])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise place.error(f"not a ServeGen dataset: {error}") from error
    found = []
    for start, fields in windows.items():
        prompts = lengths(fields.get("input_tokens"), place)
        outputs = lengths(fields.get("output_tokens"), place)
        if prompts and outputs:
            found.append((real(start, "window", place), prompts, outputs))
    found.sort(key=lambda item: item[0])
    return [one for one, _, _ in found], [one for _, one, _ in found], [one for _, _, one in found]


def lengths(pdf: object, place: MemberLine) -> Lengths | None:
    """A PDF written `{45: 0.0096, 46: ...}`, as text or as an object; None when empty."""
    pairs: list[tuple[float, float]] = []
    items = list(pdf.items()) if isinstance(pdf, dict) else _text_items(pdf, place)
    for value, weight in items:
        pairs.append((real(value, "tokens", place), real(weight, "probability", place)))
    pairs.sort()
    sums = list(accumulate(weight for _, weight in pairs))
    return Lengths([round(value) for value, _ in pairs], sums) if sums and sums[-1] > 0.0 else None


def _text_items(pdf: object, place: MemberLine) -> list[tuple[str, str]]:
    if pdf is None:
        return []
    if not isinstance(pdf, str) or not (pdf.startswith("{") and pdf.endswith("}")):
        raise place.error("a PDF is a mapping of tokens to probability, such as {45: 0.01, 46: 0.02}")
    items = []
    for item in filter(None, (part.strip() for part in pdf[1:-1].split(","))):
        value, colon, weight = item.partition(":")
        if not colon:
            raise place.error(f"a PDF holds {item[:40]!r}; expected tokens: probability")
        items.append((value, weight))
    return items


def generate(clients: dict[int, Client], ask: Ask, name: str) -> list[Arrival]:
    """Arrivals of all clients in order of time, windows outside the one asked for left out."""
    if not any(client.spans and client.starts for client in clients.values()):
        raise TraceError("holds no ServeGen client; expected chunk-N-trace.csv with chunk-N-dataset.json", file=name)
    wanted = [
        (span.start_s, number, span)
        for number, client in clients.items()
        for span in client.spans
        if client.starts and span.start_s < ask.end_s and span.start_s + span.length_s > ask.start_s
    ]
    wanted.sort(key=lambda item: item[:2])
    arrivals: list[Arrival] = []
    inside = 0
    for at, (start, number, span) in enumerate(wanted):
        # Windows come in order of time: when a later one begins, what is made so far is complete up to there.
        if ask.limit is not None and inside >= ask.limit and start > wanted[at - 1][0]:
            break
        made = one_window(clients[number], number, span, ask.seed)
        arrivals += made
        inside += sum(1 for arrival in made if ask.start_s <= arrival.at_s < ask.end_s)
    arrivals.sort(key=lambda arrival: arrival.at_s)
    return arrivals


def one_window(client: Client, number: int, span: Span, seed: int) -> list[Arrival]:
    rng = Random(f"servegen {seed} {number} {span.start_s:g}")
    expected = span.rate * span.length_s
    count = int(expected + 1e-6)
    count += rng.random() < expected - count
    at = max(0, bisect_right(client.starts, span.start_s) - 1)
    prompts, outputs, tenant = client.prompts[at], client.outputs[at], f"client-{number}"
    return [
        Arrival(span.start_s + offset, prompts.draw(rng), outputs.draw(rng), (), tenant)
        for offset in offsets(gaps(span.kind, span.shape, count, rng), span.length_s, rng)
    ]


def offsets(drawn: list[float], length_s: float, rng: Random) -> list[float]:
    """Times in [0, length) whose gaps, going round, are the drawn ones scaled to fill it."""
    total = sum(drawn)
    if total <= 0.0:
        return sorted(rng.random() * length_s for _ in drawn)
    phase, scale = rng.random() * length_s, length_s / total
    return sorted((phase + reached * scale) % length_s for reached in accumulate(drawn))


class MemberLine:
    """Where in a member a message points to."""

    def __init__(self, name: str, line: int) -> None:
        self.name, self.line = name, line

    def error(self, message: str) -> TraceError:
        return TraceError(message, file=self.name, line=self.line)


def _all(stream: IO[bytes]) -> bytes:
    content = stream.read(MEMBER_BYTES + 1)
    if len(content) > MEMBER_BYTES:
        raise TraceError(f"is larger than {MEMBER_BYTES:,} bytes")
    return content
