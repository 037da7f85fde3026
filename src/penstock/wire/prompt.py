"""What the raw bytes of a prompt tell without reading it: how many tokens, and which prefix it shares with others."""

from __future__ import annotations

from msgspec import Raw
from xxhash import xxh3_64_intdigest

SLICE_BYTES = 2_048
"""Bytes of a prefix block: `facts.BLOCK_TOKENS` at four bytes a token."""
BYTES_PER_TOKEN = 4
"""English in GPT-like vocabularies; Chinese in UTF-8 comes to about the same, with 3 bytes and 0.6 tokens a character."""
ESCAPED_BYTES_PER_TOKEN = 10
"""The same characters written as `\\uXXXX`: 6 bytes for 0.6 tokens."""
SAMPLE_BYTES = 1_024

_NUMBERS = frozenset(b"0123456789[")
"""What a list of tokens, or of such lists, goes on with."""


def blocks(text: bytes, model: str, tools: Raw | None, salt: int) -> tuple[int, ...]:
    """Chained 64-bit hashes of the full slices of a prompt's raw JSON: equal up to the first slice that differs.

    They are the same in every process and run. Model and tools are part of the seed, for they come before the messages in
    what the engine computes. The closing bracket or quote is left out: it moves when a conversation grows.
    """
    end = (len(text) - 1) // SLICE_BYTES * SLICE_BYTES
    if end <= 0:
        return ()
    link = xxh3_64_intdigest(model.encode(), salt)
    if tools:
        link = xxh3_64_intdigest(tools, link)
    view = memoryview(text)
    return tuple([link := xxh3_64_intdigest(view[at : at + SLICE_BYTES], link) for at in range(0, end, SLICE_BYTES)])


def tokens(text: bytes, tools_bytes: int) -> int:
    """Prompt tokens, estimated from bytes; exact for prompts given as tokens. Images count as the text that carries them."""
    if text[0] == 0x5B and text[1] in _NUMBERS:
        return text.count(b",") + 1
    size = len(text) + tools_bytes
    escaped = 0
    if b"\\" in text:
        middle = max(0, (len(text) - SAMPLE_BYTES) // 2)
        sample = text[middle : middle + SAMPLE_BYTES]
        escaped = size * 6 * sample.count(b"\\u") // len(sample)
    return max(1, (size - escaped) // BYTES_PER_TOKEN + escaped // ESCAPED_BYTES_PER_TOKEN)
