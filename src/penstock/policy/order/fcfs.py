"""First come, first served, inside priority."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from penstock.policy.views import FlightView


class Fcfs(msgspec.Struct, frozen=True):
    def key(self, flight: FlightView) -> float:
        return flight.arrived
