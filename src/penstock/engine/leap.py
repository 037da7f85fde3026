"""A run of steps with the same batch: an arithmetic series in time, since each step adds one token to every context."""

from __future__ import annotations

from math import inf, sqrt


class Leap:
    """`steps` steps from time `at` on, the first of `first_s`, each `slope_s` longer than the one before. No steps: idle."""

    __slots__ = ("at", "end", "first_s", "slope_s", "steps")

    def __init__(self) -> None:
        self.at = -inf
        self.steps = 0
        self.first_s = self.slope_s = 0.0
        self.end = inf
        """When the last step is done; inf when idle."""

    def plan(self, steps: int, first_s: float, slope_s: float) -> None:
        self.steps, self.first_s, self.slope_s = steps, first_s, slope_s
        self.end = self.at + steps * first_s + slope_s * (steps * (steps - 1) // 2)

    def clear(self) -> None:
        self.steps, self.end = 0, inf

    def time(self, steps: int) -> float:
        """When the first `steps` steps are done."""
        if steps == self.steps:
            return self.end
        return self.at + steps * self.first_s + self.slope_s * (steps * (steps - 1) // 2)

    def done(self, now: float) -> int:
        """Steps done by `now`, not counting the last: what it completes is for the engine to settle."""
        last = self.steps - 1
        if last <= 0 or now < self.at + self.first_s:
            return 0
        past, first, slope = now - self.at, self.first_s, self.slope_s
        if slope > 0.0:  # solve slope/2 * k^2 + (first - slope/2) * k = past
            half = first - slope / 2
            steps = int(2 * past / (half + sqrt(half * half + 2 * slope * past)))
        else:
            steps = int(past / first)
        steps = min(steps, last)
        while steps < last and self.time(steps + 1) <= now:  # the formula rounds; `time` decides
            steps += 1
        while steps and self.time(steps) > now:
            steps -= 1
        return steps

    def past_s(self, now: float) -> float:
        """Seconds since the first step began; 0 when idle."""
        return now - self.at if self.steps and now > self.at else 0.0

    def drop(self, steps: int) -> None:
        """Begin `steps` steps later."""
        self.at = self.time(steps)
        self.steps -= steps
        self.first_s += self.slope_s * steps

    def stop(self) -> None:
        """End with the first step."""
        if self.steps > 1:
            self.steps = 1
            self.end = self.at + self.first_s
