"""A task class: what its requests are promised."""

from __future__ import annotations

from math import inf


class TaskClass:
    """A class with its numbers in seconds and tokens; infinite where it sets no bound."""

    __slots__ = ("continues", "floor", "ladder", "name", "patient", "priority", "total_s", "tpot_s", "ttft_s", "ttft_s_per_token", "value")

    def __init__(
        self,
        name: str,
        priority: int,
        ttft_s: float = inf,
        ttft_s_per_token: float = 0.0,
        tpot_s: float = inf,
        total_s: float = inf,
        value: float = 1.0,
        floor: float = 0.0,
        ladder: tuple[str, ...] = (),
        patient: bool = False,
        continues: bool = True,
    ) -> None:
        self.name = name
        self.priority = priority
        self.ttft_s = ttft_s
        self.ttft_s_per_token = ttft_s_per_token
        self.tpot_s = tpot_s
        self.total_s = total_s
        self.value = value
        """What a good answer is worth."""
        self.floor = floor
        """Share of the work that it keeps."""
        self.ladder = ladder
        """What to try, in order; empty: the configuration's."""
        self.patient = patient
        """It waits as long as it takes."""
        self.continues = continues
        """A stream whose node is lost goes on elsewhere, where that can be exact."""

    def first_s(self, prompt_tokens: int) -> float:
        """Time within which the first token of an answer to so many is due."""
        return self.ttft_s + self.ttft_s_per_token * prompt_tokens

    @property
    def soonest_s(self) -> float:
        """The time within which anything of it is due."""
        return min(self.ttft_s, self.total_s)


DEFAULT = TaskClass("default", 3)
