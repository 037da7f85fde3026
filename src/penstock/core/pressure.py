"""How much of what comes is refused, of late: while that is much, long waits help nobody."""

from __future__ import annotations

HALF_LIFE_S = 4.0


class Pressure:
    """Counts with a half-life."""

    __slots__ = ("at", "came", "refused")

    def __init__(self) -> None:
        self.came = self.refused = 0.0
        self.at = 0.0

    def note(self, refused: bool, now: float) -> None:
        self._age(now)
        self.came += 1.0
        self.refused += refused

    def withdrawn(self, now: float) -> None:
        """What had been admitted was not served after all."""
        self._age(now)
        self.refused = min(self.came, self.refused + 1.0)

    def share(self) -> float:
        """Of what came. A few do not make a share."""
        return self.refused / (self.came + 4.0)

    def _age(self, now: float) -> None:
        if now > self.at:
            keep = 0.5 ** ((now - self.at) / HALF_LIFE_S)
            self.came *= keep
            self.refused *= keep
            self.at = now
