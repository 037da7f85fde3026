"""Results of VTC's experiments (Ying1123/VTC-artifact, OSDI'24): JSON documents, one a line, of which the first is read.

`result.responses` has a row a request: `adapter_dir` (the client), `prompt_len`, `output_len`, `req_time` (seconds). Other fields
tell how its own scheduler served them and are passed over; rows may be in any order.
"""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.errors import TraceError
from penstock.sim.arrival import Arrival
from penstock.sim.traces.ask import Ask
from penstock.sim.traces.mooncake import from_zero
from penstock.sim.traces.numbers import nothing, seconds, tokens
from penstock.sim.traces.source import Source


class Row(msgspec.Struct, gc=False):
    adapter_dir: str
    prompt_len: Any
    output_len: Any
    req_time: Any


class Result(msgspec.Struct):
    responses: list[Row]


class Document(msgspec.Struct):
    result: Result


class RowPlace:
    """A row of the document, for messages."""

    def __init__(self, source: Source, number: int) -> None:
        self.name = source.name
        self._source, self._number = source, number

    def error(self, message: str) -> TraceError:
        return self._source.error(f"result.responses[{self._number}]: {message}")


def recognise(head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and b'"adapter_dir"' in head and b'"responses"' in head


def read(source: Source, ask: Ask) -> list[Arrival]:
    """Every row as an Arrival, the earliest at 0. Raises TraceError naming the row that is wrong."""
    raw = next(source.lines(), b"")
    try:
        document = msgspec.json.decode(raw.removeprefix(b"\xef\xbb\xbf"), type=Document)
    except msgspec.ValidationError as error:
        raise source.error(f"{error}; expected result.responses with rows {{adapter_dir, prompt_len, output_len, req_time}}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise source.error(f"not a JSON document: {error}") from error
    arrivals = []
    for number, row in enumerate(document.result.responses):
        place = RowPlace(source, number)
        arrivals.append(
            Arrival(
                at_s=seconds(row.req_time, "req_time", place),
                prompt_tokens=tokens(row.prompt_len, "prompt_len", place),
                output_tokens=tokens(row.output_len, "output_len", place),
                tenant=row.adapter_dir,
            )
        )
    if not arrivals:
        raise nothing(source)
    return from_zero(arrivals)
