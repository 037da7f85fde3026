"""Answers that broke off after their first byte: the rest is asked of another node. A part of the core, over its state.

What the caller has counts as prompt from then on, and what is left of its limit as its limit. Such a request waits before all
others, because somebody sits before a stream that has stopped. A node that dies with many streams has all of them go on; only who
loses a second node pays from the budget of retries, so that a request that kills its nodes does not go through the fleet.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import msgspec

from penstock.core.flight import Flight
from penstock.core.ladder import USUAL
from penstock.events import Failed
from penstock.facts import Failure

if TYPE_CHECKING:
    from penstock.core.core import Core
    from penstock.core.fleet import Node

FIRST = 6
"""Its priority: above all that classes have."""
GAP_S = 30.0
"""How long a stream may stand still for want of a node: as long as an engine may be silent inside one."""

FREE = frozenset({Failure.BUSY, Failure.CONNECT, Failure.REFUSED})
"""With these a node had no work of it."""


class Resume:
    __slots__ = ("core",)

    def __init__(self, core: Core) -> None:
        self.core = core

    def again(self, flight: Flight, event: Failed, node: Node, shown: bool, now: float) -> bool:
        """`node` broke it off, having `shown` something of the rest or not: have it wait for another, where one may go on with it."""
        core = self.core
        if not flight.task.continues:
            return False
        if shown or flight.form is None:
            if flight.losses and core.retries < 1.0:
                return False
            core.retries -= 1.0 if flight.losses else 0.0
            flight.losses += 1
            flight.expires = now + GAP_S
            flight.tried = node.bit
        elif event.failure not in FREE:
            if core.retries < 1.0:
                return False
            core.retries -= 1.0
        flight.form = event.form
        if event.failure is not Failure.REFUSED and not self.any_able(flight):
            # Those that failed it before may be well again; where they are not, their breakers end this.
            flight.tried = node.bit
        if now >= flight.expires or not self.any_able(flight):
            return False
        self._count(flight, event.emitted_tokens)
        flight.ladder, flight.rung, flight.waits, flight.by_end = USUAL, 0, True, False
        flight.priority, flight.due, flight.ends, flight.grace_s = FIRST, inf, inf, 0.0
        flight.rank = flight.key = core.order.key(flight)
        if core.latest is not None:
            flight.key = core.latest.key(flight)
        core.wait(flight, now)
        return True

    def any_able(self, flight: Flight) -> bool:
        return any(node.continues(flight.form) and not flight.tried & node.bit for node in flight.lane.nodes)

    def _count(self, flight: Flight, emitted: int) -> None:
        request, more = flight.request, emitted - flight.emitted
        left = max(1, request.max_tokens - more) if request.max_tokens else 0
        flight.request = msgspec.structs.replace(request, prompt_tokens=request.prompt_tokens + more, max_tokens=left)
        flight.emitted, flight.output = emitted, max(0.0, flight.output - more)
