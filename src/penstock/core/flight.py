"""A request while it lives in the core: the facts, its class, its place and what was promised for it."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import msgspec

from penstock.core.classify import TaskClass
from penstock.facts import Request

if TYPE_CHECKING:
    from penstock.core.fleet import Node
    from penstock.core.lane import Lane


class Flight(msgspec.Struct, eq=False):
    """Times are seconds on the core's clock."""

    request: Request
    task: TaskClass
    lane: Lane
    arrived: float
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
    tried: int = 0
    """Bits of the nodes that failed it."""

    @property
    def patient(self) -> bool:
        """It has no deadline, and may wait as long as it takes."""
        return self.task.patient or self.request.patient
