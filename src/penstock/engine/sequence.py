"""What an engine is given and what it gives back."""

from __future__ import annotations

import msgspec

from penstock.facts import BLOCK_TOKENS


class Sequence(msgspec.Struct, frozen=True, gc=False):
    """One prompt and the number of tokens that the engine will answer with."""

    id: int
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    """Chained hashes of the prompt's full blocks of `facts.BLOCK_TOKENS` tokens."""


class Started(msgspec.Struct, frozen=True, gc=False):
    """The first token is out."""

    id: int
    at: float
    cached_tokens: int
    """Prompt tokens that came from the prefix cache."""


class Ended(msgspec.Struct, frozen=True, gc=False):
    """The last token is out, or the sequence was refused because it could never fit."""

    id: int
    at: float
    output_tokens: int
    """0 when refused."""

    @property
    def refused(self) -> bool:
        return self.output_tokens == 0


Outcome = Started | Ended


class Run:
    """A sequence inside the engine: made anew each time it is queued, so that a stale heap entry is told by `gone`."""

    __slots__ = ("began", "cached", "done", "gone", "id", "last_at", "left", "sequence", "serial", "shared", "total")

    def __init__(self, sequence: Sequence, serial: int, done: int = 0, last_at: float = 0.0) -> None:
        self.sequence = sequence
        self.id = sequence.id
        self.serial = serial
        self.done = done
        """Tokens out before this run: above 0 after a preemption."""
        self.last_at = last_at
        """When the last of them was out."""
        self.total = sequence.prompt_tokens + done
        """Tokens whose KV must be there before the next token can be made."""
        self.left = self.total
        """Those of them still to be computed."""
        self.cached = 0
        self.began = -1
        """The engine's step count when this run's first token was out; -1 until then."""
        self.gone = False
        self.shared: list[int] = []
        """Blocks held in the shared pool, see `memory.Within`."""

    def slots(self, steps: int) -> int:
        """KV slots held once `steps` steps are done: the newest token's KV is not computed yet."""
        return self.total if self.began < 0 else self.total + steps - self.began

    def emitted(self, steps: int) -> int:
        """Tokens out once `steps` steps are done."""
        return self.done if self.began < 0 else self.done + 1 + steps - self.began

    def usable_blocks(self) -> int:
        """Leading blocks that may come from a cache: whole ones, and at least one token is always computed."""
        sequence = self.sequence
        return min(len(sequence.blocks), sequence.prompt_tokens // BLOCK_TOKENS, (self.total - 1) // BLOCK_TOKENS)
