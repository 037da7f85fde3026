"""What a good answer is."""

from __future__ import annotations

from math import inf

import msgspec

from penstock.core.classify import TaskClass


class Slo(msgspec.Struct, frozen=True, kw_only=True):
    """Service-level objective, in seconds. None asks nothing."""

    ttft_s: float | None = None
    ttft_per_1k_s: float = 0.0
    """Added to `ttft_s` for each 1,000 prompt tokens."""
    tpot_s: float | None = None
    """Mean time between an answer's tokens; an answer of one token has none."""
    total_s: float | None = None
    """The whole answer."""

    @property
    def set(self) -> bool:
        return self.ttft_s is not None or self.tpot_s is not None or self.total_s is not None

    def met(self, prompt_tokens: int, ttft_s: float, tpot_s: float | None, total_s: float = 0.0) -> bool:
        if self.total_s is not None and total_s > self.total_s:
            return False
        if self.ttft_s is not None and ttft_s > self.ttft_s + self.ttft_per_1k_s * prompt_tokens / 1_000:
            return False
        return self.tpot_s is None or tpot_s is None or tpot_s <= self.tpot_s

    def text(self) -> str:
        parts = []
        if self.ttft_s is not None:
            more = f" + {self.ttft_per_1k_s:g} s per 1,000 prompt tokens" if self.ttft_per_1k_s else ""
            parts.append(f"first token within {self.ttft_s:g} s{more}")
        if self.tpot_s is not None:
            parts.append(f"at most {self.tpot_s:g} s between tokens on average")
        if self.total_s is not None:
            parts.append(f"all of it within {self.total_s:g} s")
        return ", ".join(parts) or "completed"


def of(task: TaskClass) -> Slo:
    """What a class promises."""
    return Slo(
        ttft_s=finite(task.ttft_s), ttft_per_1k_s=task.ttft_s_per_token * 1e3, tpot_s=finite(task.tpot_s), total_s=finite(task.total_s)
    )


def finite(seconds: float) -> float | None:
    return seconds if seconds < inf else None
