"""What a good answer is: complete, its first token in time, and its tokens close enough together."""

from __future__ import annotations

import msgspec


class Slo(msgspec.Struct, frozen=True, kw_only=True):
    """Service-level objective. Times in seconds."""

    ttft: float = 2.0
    ttft_per_1k: float = 0.0
    """Added to `ttft` for each 1,000 prompt tokens."""
    tpot: float = 0.1
    """Mean time between the tokens of an answer; one-token answers have none."""

    def deadline_s(self, prompt_tokens: int) -> float:
        return self.ttft + self.ttft_per_1k * prompt_tokens / 1_000

    def met(self, prompt_tokens: int, ttft_s: float, tpot_s: float) -> bool:
        return ttft_s <= self.deadline_s(prompt_tokens) and tpot_s <= self.tpot
