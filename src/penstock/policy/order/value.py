"""The most value first, inside priority: what a good answer is worth, for each token that it keeps in KV memory for a second.

Highest value density first is the best order when not everything can be served in time (Dertouzos' and Locke's best-effort
scheduling). A request past its deadline is worth half as much for every `decay_s` that it is late, even if it begins at once.
It reorders only while slack allows: a request that would start too late otherwise goes first.
"""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from penstock.policy.views import FlightView

LEAST = 1e-9


class Value:
    yields: ClassVar[bool] = True

    def __init__(self, decay_s: float = 1.0, itl_s: float = 0.03) -> None:
        self.decay_s = decay_s
        self.itl_s = itl_s
        """Seconds that an output token is taken to keep the rest of its request in memory."""

    def key(self, flight: FlightView) -> float:
        tokens = flight.request.prompt_tokens + 0.5 * flight.output
        seconds = flight.own_s + flight.output * self.itl_s
        late_s = max(0.0, flight.arrived + flight.own_s - flight.due)
        return late_s / self.decay_s - log2(max(LEAST, flight.task.value) / max(LEAST, tokens * seconds))
