"""First come, first served, inside priority."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.policy.views import FlightView


class Fcfs:
    def key(self, flight: FlightView) -> float:
        return flight.arrived
