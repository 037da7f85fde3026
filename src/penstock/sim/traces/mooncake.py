"""Mooncake's traces, and the like: one JSON object a line.

`timestamp` (milliseconds), `input_length`, `output_length`, `hash_ids` (one id a 512-token block, equal ids mean equal
prefixes; the last block may be partial). Source: kvcache-ai/Mooncake, FAST'25 release. Alibaba's Bailian traces have the same
fields with `chat_id`, seconds, and blocks of 16 tokens: both units are told from the rows themselves. Unknown keys are
passed over, `hash_ids` may be missing, rows may be in any order.
"""

from __future__ import annotations

from typing import Any

import msgspec
import xxhash

from penstock.facts import BLOCK_TOKENS
from penstock.sim.arrival import Arrival
from penstock.sim.traces.ask import Ask
from penstock.sim.traces.numbers import nothing, seconds, tokens
from penstock.sim.traces.source import Source


class Row(msgspec.Struct, gc=False):
    timestamp: Any
    input_length: Any
    output_length: Any
    hash_ids: list[int] | None = None
    chat_id: int | str | None = None


def recognise(head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and b'"input_length"' in head


def read(source: Source, ask: Ask) -> list[Arrival]:
    """Every row as an Arrival, the earliest at 0. Raises TraceError naming the line of a bad row."""
    decoder = msgspec.json.Decoder(Row)
    arrivals: list[Arrival] = []
    block_tokens = 0
    for raw in source.lines():
        row = decode(decoder, raw, source)
        prompt = tokens(row.input_length, "input_length", source)
        if row.hash_ids and not block_tokens:
            block_tokens = block_size(prompt, len(row.hash_ids))
        unit = 1.0 if row.chat_id is not None else 1e-3
        arrivals.append(
            Arrival(
                at_s=seconds(row.timestamp, "timestamp", source) * unit,
                prompt_tokens=prompt,
                output_tokens=tokens(row.output_length, "output_length", source),
                blocks=full_blocks(row.hash_ids or [], prompt, block_tokens),
            )
        )
    if not arrivals:
        raise nothing(source)
    return from_zero(arrivals)


def decode(decoder: msgspec.json.Decoder[Row], raw: bytes, source: Source) -> Row:
    try:
        return decoder.decode(raw.removeprefix(b"\xef\xbb\xbf"))
    except msgspec.ValidationError as error:
        raise source.error(f"{error}; a row is {{timestamp, input_length, output_length, hash_ids}}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise source.error(f"not a JSON object: {error}") from error


def block_size(prompt: int, ids: int) -> int:
    """Tokens a block, from how many ids a prompt has: the power of two that comes nearest."""
    sizes = (16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096)
    return min(sizes, key=lambda size: abs(-(-prompt // size) - ids))


def full_blocks(ids: list[int], prompt: int, block_tokens: int) -> tuple[int, ...]:
    """Hashes of the prompt's full blocks of BLOCK_TOKENS, from ids of blocks of another size where need be."""
    if block_tokens in (0, BLOCK_TOKENS):
        return tuple(ids[: prompt // BLOCK_TOKENS])
    if block_tokens > BLOCK_TOKENS:
        each = block_tokens // BLOCK_TOKENS
        return tuple(chain(one, part) for one in ids for part in range(each))[: prompt // BLOCK_TOKENS]
    each = BLOCK_TOKENS // block_tokens
    chained, blocks = 0, []
    for start in range(0, len(ids) // each * each, each):
        chained = chain(ids[start : start + each], chained)
        blocks.append(chained)
    return tuple(blocks[: prompt // BLOCK_TOKENS])


def chain(ids: int | list[int], before: int) -> int:
    return xxhash.xxh3_64_intdigest(repr(ids).encode(), before)


def from_zero(arrivals: list[Arrival]) -> list[Arrival]:
    """The same, in order of time, the earliest at 0."""
    arrivals.sort(key=lambda arrival: arrival.at_s)
    first = arrivals[0].at_s
    if first == 0.0:
        return arrivals
    return [msgspec.structs.replace(arrival, at_s=arrival.at_s - first) for arrival in arrivals]
