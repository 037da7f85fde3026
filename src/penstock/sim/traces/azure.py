"""Azure's LLM inference traces, and tables like them: CSV with a header, columns in any order.

Source: Azure/AzurePublicDataset, AzureLLMInferenceTrace 2023 and 2024: `TIMESTAMP` (7 fraction digits, with or without a time
zone; without one it is read as UTC), `ContextTokens`, `GeneratedTokens`. A timestamp may also be plain seconds. Other columns
are passed over, rows may be in any order.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from datetime import UTC, datetime

from penstock.sim.arrival import Arrival
from penstock.sim.traces.ask import Ask
from penstock.sim.traces.mooncake import from_zero
from penstock.sim.traces.numbers import nothing, real, tokens
from penstock.sim.traces.source import Source

# Column -> names it goes by, lower-case, only letters. Azure's first; the others are BurstGPT's and Vidur's.
COLUMNS = {
    "time": ("timestamp", "arrivedat", "arrivaltime", "time"),
    "prompt": ("contexttokens", "requesttokens", "numprefilltokens", "inputtokens", "prompttokens"),
    "output": ("generatedtokens", "responsetokens", "numdecodetokens", "outputtokens", "completiontokens"),
}


def recognise(head: bytes) -> bool:
    first = head.removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0]
    return columns(first.decode("utf-8", "replace").strip().split(",")) is not None


def read(source: Source, ask: Ask) -> list[Arrival]:
    """Every row as an Arrival, the earliest at 0. Raises TraceError naming the line of a bad row."""
    rows = csv.reader(source.text(), strict=True)
    try:
        header = next(rows, [])
        found = columns(header)
        if found is None:
            raise source.error("not an Azure trace: the header must name TIMESTAMP, ContextTokens and GeneratedTokens")
        return parsed(rows, found, len(header), source)
    except csv.Error as error:
        raise source.error(f"not a CSV row: {error}") from error


def parsed(rows: Iterable[list[str]], found: tuple[int, int, int], width: int, source: Source) -> list[Arrival]:
    arrivals = []
    time_at, prompt_at, output_at = found
    minutes: dict[str, float] = {}
    for row in rows:
        if len(row) < width:
            raise source.error(f"{len(row)} columns where the header has {width}; the file may be truncated")
        arrivals.append(
            Arrival(
                at_s=moment(row[time_at].strip(), minutes, source),
                prompt_tokens=tokens(row[prompt_at].strip(), "ContextTokens", source),
                output_tokens=tokens(row[output_at].strip(), "GeneratedTokens", source),
            )
        )
    if not arrivals:
        raise nothing(source)
    return from_zero(arrivals)


def columns(header: list[str]) -> tuple[int, int, int] | None:
    """Where time, prompt and output stand, or None when one of them is missing."""
    names = ["".join(filter(str.isalpha, name.lower())) for name in header]
    places = [next((names.index(name) for name in known if name in names), -1) for known in COLUMNS.values()]
    return None if -1 in places else (places[0], places[1], places[2])


def moment(text: str, minutes: dict[str, float], source: Source) -> float:
    """Seconds since 1970, or since whatever a plain number counts from. `minutes` remembers parsed minutes: most rows share one.

    Seven digits of fraction are kept: the minute is parsed as a date, seconds and fraction as a number.
    """
    if len(text) < 19 or text[16] != ":":
        return real(text, "TIMESTAMP", source) if _is_number(text) else _bad(text, source)
    fraction_end = 19
    while fraction_end < len(text) and text[fraction_end] in ".0123456789":
        fraction_end += 1
    minute, zone = text[:16], text[fraction_end:].strip().replace("Z", "+00:00")
    try:
        if minute + zone not in minutes:
            at = datetime.fromisoformat(minute + ":00" + zone)
            minutes[minute + zone] = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        second = float(text[17:fraction_end])
    except (ValueError, OverflowError):
        return _bad(text, source)
    return minutes[minute + zone] + second if 0.0 <= second < 61.0 else _bad(text, source)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _bad(text: str, source: Source) -> float:
    raise source.error(f"TIMESTAMP is {text!r}; expected 2023-11-16 18:15:46.6805900 or a number of seconds")
