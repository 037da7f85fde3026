"""What an embedded engine says: words drawn from the prompt's hash, the same in every run and process.

Law: pure. A token is one word with the space before it; no word needs escaping in JSON.
"""

from __future__ import annotations

from math import log, sqrt
from struct import pack

from xxhash import xxh3_64_intdigest

_TEXT = """
 the water behind wall waits for gate to open and pipe that carries it down hill is called penstock when valve turns flow
 grows until blades spin at their rated speed more than this they cannot take so keeper watches level reads gauge counts each
 turbine sends every stream where there room leaves rest in lake nothing spills over dam no field below runs dry evening comes
 slowly lights of town rise one after another load climbs gates move by small steps hum becomes steady song rain may fall all
 night river swell or summer shrink balance holds because measure made before promise given what must wait told how long why
 morning mist lifts from still surface engineers walk along crest check seals bearings sluices write numbers into old book then
 talk about year flood came how well works held with patience rule simple keep head even never hurry never stop
"""
WORDS = tuple(b" " + word.encode() for word in _TEXT.split())
"""Tokens. Their number is prime, see `Voice`."""
_COUNT = len(WORDS)

MEAN_TOKENS = 250
SHORTEST_TOKENS = 8
LONGEST_TOKENS = 4_096


class Voice:
    """The endless text of one choice: a walk over WORDS with a step drawn from the seed."""

    __slots__ = ("_start", "_step")

    def __init__(self, seed: int) -> None:
        self._start = seed % _COUNT
        self._step = 1 + (seed >> 20) % (_COUNT - 1)

    def word(self, index: int) -> bytes:
        return WORDS[(self._start + self._step * index) % _COUNT]

    def words(self, first: int, last: int) -> bytes:
        """Tokens `first` to `last` - 1 in one string."""
        return b"".join([WORDS[(self._start + self._step * index) % _COUNT] for index in range(first, last)])


def seed(prompt: bytes, choice: int) -> int:
    """What all of an answer is drawn from."""
    return xxh3_64_intdigest(prompt, choice)


def natural_tokens(seed: int) -> int:
    """How long the answer would be by itself: exponentially distributed, as the lengths of chat answers roughly are."""
    share = (seed & 0xFFFF) / 65_536
    return min(LONGEST_TOKENS, max(SHORTEST_TOKENS, round(-MEAN_TOKENS * log(1.0 - share))))


def reasoning_tokens(seed: int) -> int:
    """How long a thinking model thinks before it answers."""
    return natural_tokens(seed >> 16)


def embedding(text: bytes, dimensions: int) -> list[float]:
    """A vector of length 1, each part drawn from the text's hash."""
    parts = [xxh3_64_intdigest(text, index) / 2**63 - 1.0 for index in range(dimensions)]
    length = sqrt(sum(part * part for part in parts)) or 1.0
    return [part / length for part in parts]


def float32(vector: list[float]) -> bytes:
    """Little-endian 32-bit floats, as OpenAI's base64 encoding has them."""
    return pack(f"<{len(vector)}f", *vector)
