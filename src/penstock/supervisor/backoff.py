"""How long to wait before a process that ended is started again."""

from __future__ import annotations

FIRST_S = 0.2
LONGEST_S = 10.0
STEADY_S = 30.0
"""A process that lived this long had started well: the next wait is the first again."""


class Backoff:
    """Waits that double while a process keeps ending early."""

    __slots__ = ("_next_s",)

    def __init__(self) -> None:
        self._next_s = FIRST_S

    def after(self, lived_s: float) -> float:
        """Seconds to wait now that the process ended after `lived_s`."""
        wait_s = FIRST_S if lived_s >= STEADY_S else self._next_s
        self._next_s = min(2 * wait_s, LONGEST_S)
        return wait_s
