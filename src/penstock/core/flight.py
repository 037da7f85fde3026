"""A request while it lives in the core: the facts, its class, its place and what was promised for it."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import msgspec

from penstock.core.classify import TaskClass
from penstock.core.ladder import USUAL, Ladder
from penstock.facts import Request

if TYPE_CHECKING:
    from penstock.core.fleet import Node
    from penstock.core.lane import Lane

SPARE_S = 0.2
"""What is kept in hand, beside the time that a node needs for a request, before something else is tried for it at the last moment."""


class Flight(msgspec.Struct, eq=False):
    """Times are seconds on the core's clock."""

    request: Request
    task: TaskClass
    lane: Lane
    arrived: float
    ladder: Ladder = USUAL
    model: str = ""
    """The model that serves it: the one asked for, until a rung names another."""
    waits: bool = True
    """It may wait in the queue."""
    rung: int = 0
    """The next of its ladder's rungs to try."""
    taken: tuple[str, ...] = ()
    """Rungs taken, in order."""
    queued: float = 0.0
    """When it began to wait."""
    due: float = inf
    """When its first token is due."""
    expires: float = inf
    """When it can no longer be started in time, or has waited for longer than may be."""
    priority: int = 3
    key: float = 0.0
    own_s: float = 0.0
    """Predicted prefill seconds, at the best node while waiting, at its node afterwards."""
    waiting: bool = False
    node: Node | None = None
    uncached: int = 0
    forwarded: float = 0.0
    done_at: float = 0.0
    """When its prefill was predicted to be done, for answers whose first token cannot be seen."""
    first: float = -1.0
    attempt: int = 0
    recalls: int = 0
    """Times it was called back from a node."""
    twin: Flight | None = None
    """The same request on a second node, until one of the two shows a first byte."""
    tried: int = 0
    """Bits of the nodes that failed it."""

    @property
    def patient(self) -> bool:
        """It has no deadline, and may wait as long as it takes."""
        return self.task.patient or self.request.patient
