"""What a good answer is: complete, its first token in time, and its tokens close enough together."""

from __future__ import annotations

import msgspec


class Slo(msgspec.Struct, frozen=True, kw_only=True):
    """Service-level objective, in seconds."""

    ttft_s: float = 2.0
    ttft_per_1k_s: float = 0.0
    """Added to `ttft_s` for each 1,000 prompt tokens."""
    tpot_s: float = 0.1
    """Mean time between an answer's tokens; an answer of one token has none."""

    def deadline_s(self, prompt_tokens: int) -> float:
        return self.ttft_s + self.ttft_per_1k_s * prompt_tokens / 1_000

    def met(self, prompt_tokens: int, ttft_s: float, tpot_s: float | None) -> bool:
        return ttft_s <= self.deadline_s(prompt_tokens) and (tpot_s is None or tpot_s <= self.tpot_s)

    def text(self) -> str:
        more = f" + {self.ttft_per_1k_s:g} s per 1,000 prompt tokens" if self.ttft_per_1k_s else ""
        return f"first token within {self.ttft_s:g} s{more}, at most {self.tpot_s:g} s between tokens on average"
