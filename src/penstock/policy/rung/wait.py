"""Wait in the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from penstock.policy.rung.step import WAIT, Step

if TYPE_CHECKING:
    from penstock.policy.views import Around, FlightView


class Wait:
    EAGER: ClassVar[bool] = False
    SERVES: ClassVar[bool] = False

    def step(self, flight: FlightView, around: Around) -> Step | None:
        return WAIT
