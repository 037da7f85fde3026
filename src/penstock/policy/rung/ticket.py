"""A durable job, where the process keeps such. A job is no ticket's request again: it waits as long as it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from penstock.policy.rung.step import DIVERT, Step

if TYPE_CHECKING:
    from penstock.policy.views import Around, FlightView


class Ticket:
    EAGER: ClassVar[bool] = False
    SERVES: ClassVar[bool] = False

    def step(self, flight: FlightView, around: Around) -> Step | None:
        return DIVERT if flight.request.ticket and not flight.request.patient else None
