"""Request bodies of an asked size: words of four bytes, since servers that count from bytes take four for a token.

Law: no I/O; the same seed and the same call give the same bytes.
"""

from __future__ import annotations

import random

import msgspec

from penstock.facts import BLOCK_TOKENS
from penstock.load.plan import Shape

WORD_BYTES = 4
BLOCK_BYTES = BLOCK_TOKENS * WORD_BYTES
STAMP_BYTES = 16
"""Each block opens with four words that spell its id, so that two blocks never read alike."""

_POOL_BYTES = 1 << 18
_LETTERS = bytes(ord("a") + code % 26 for code in range(256))
_HEX_TO_LETTERS = str.maketrans("0123456789abcdef", "bcdfghjklmnprstv")


def _pool() -> bytes:
    """Words to cut blocks from, long enough to hold one block at any offset below `_POOL_BYTES`."""
    text = bytearray(random.Random("words").randbytes(_POOL_BYTES + BLOCK_BYTES).translate(_LETTERS))
    text[WORD_BYTES - 1 :: WORD_BYTES] = b" " * (len(text) // WORD_BYTES)
    return bytes(text)


def _spell(number: int) -> bytes:
    text = format(number & 0xFFFF_FFFF_FFFF, "012x").translate(_HEX_TO_LETTERS)
    return f"{text[:3]} {text[3:6]} {text[6:9]} {text[9:]} ".encode()


class Prompts:
    """Makes the JSON bodies of one run."""

    def __init__(self, model: str, *, stream: bool = True, seed: int = 0) -> None:
        self._pool = _pool()
        self._head = b'{"model":%s,"messages":[{"role":"user","content":"' % msgspec.json.encode(model)
        tail = '"}],"max_tokens":%d,"ignore_eos":true'
        self._tail = tail + (',"stream":true,"stream_options":{"include_usage":true}}' if stream else "}")
        self._salt = (seed * 0x9E37_79B9 + 1) << 40
        """Keeps a run's own text apart from other runs' and from shared blocks."""

    def body(self, shape: Shape, index: int) -> bytes:
        """The body of the run's call number `index`; its content has exactly `prompt_tokens` words."""
        return b"".join((self._head, *self._content(shape, index), (self._tail % shape.output_tokens).encode()))

    def _content(self, shape: Shape, index: int) -> list[bytes]:
        left = max(1, shape.prompt_tokens) * WORD_BYTES
        parts: list[bytes] = []
        for block in shape.blocks:
            if left <= 0:
                break
            parts += self._block(block, min(left, BLOCK_BYTES))
            left -= BLOCK_BYTES
        own = self._salt + (index << 16)
        while left > 0:
            parts += self._block(own, min(left, BLOCK_BYTES))
            left -= BLOCK_BYTES
            own += 1
        parts[-1] = parts[-1][:-1] + b"."
        return parts

    def _block(self, number: int, size: int) -> tuple[bytes, ...]:
        """`size` bytes of the text that `number` stands for: a prefix of its full 512 words."""
        stamp = _spell(number)
        if size <= STAMP_BYTES:
            return (stamp[:size],)
        start = number * 7_919 * WORD_BYTES % _POOL_BYTES
        return stamp, self._pool[start : start + size - STAMP_BYTES]
