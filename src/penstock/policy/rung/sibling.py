"""Another pool's nodes for the same model: the pool that its own names as `fallback`, then that one's, one for each such rung."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from penstock.policy.rung.step import Step

if TYPE_CHECKING:
    from penstock.policy.views import Around, FlightView


class Sibling:
    EAGER: ClassVar[bool] = False
    SERVES: ClassVar[bool] = True

    def step(self, flight: FlightView, around: Around) -> Step | None:
        pool = around.fallbacks.get(flight.pool())
        return None if pool is None else Step(pool=pool)
