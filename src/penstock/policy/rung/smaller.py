"""Another model in place of the one asked for, as the configuration names it. The caller is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from penstock.policy.rung.step import Step

if TYPE_CHECKING:
    from penstock.policy.views import Around, FlightView


class Smaller:
    EAGER: ClassVar[bool] = False
    SERVES: ClassVar[bool] = True

    def step(self, flight: FlightView, around: Around) -> Step | None:
        model = around.smaller.get(flight.model)
        return None if model is None else Step(lane=model, model=model)
