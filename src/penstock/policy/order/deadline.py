"""Earliest deadline first, inside priority: the request whose latest start comes first.

Deadline order is optimal on one machine whenever any order meets all deadlines (Liu and Layland, 1973); with admission that
refuses what cannot be met, it stays there under overload. A prompt is prefilled by one node in one piece, so what counts is
the deadline less its own prefill: on a fleet a long prompt must start earlier than its deadline alone would say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.policy.views import FlightView

PATIENCE_S = 60.0
"""A request without a deadline is ordered as if due this long after it arrived, so that it is passed over but not for ever."""


class Deadline:
    def key(self, flight: FlightView) -> float:
        return min(flight.due - flight.own_s, flight.arrived + PATIENCE_S)
