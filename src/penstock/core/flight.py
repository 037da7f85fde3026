"""A request while it lives in the core: the facts, its class, its place and what was promised for it."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import msgspec

from penstock.core.classify import TaskClass
from penstock.core.ladder import USUAL, Ladder
from penstock.core.lengths import Lengths, Survival
from penstock.facts import Request

if TYPE_CHECKING:
    from penstock.core.fairness import Account
    from penstock.core.fleet import Node
    from penstock.core.lane import Lane

SPARE_S = 0.2
"""What is kept in hand, beside the time that a node needs for a request, before something else is tried for it at the last moment."""


UNKNOWN = Lengths().start


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
    ends: float = inf
    """When its whole answer is due."""
    by_end: bool = False
    """Only its end counts: prefill is part of it, and how much a node has at once is what it is limited by."""
    usual: float = 0.0
    """A middle quantile of its class's answers' times, as a share of a node's mean; of nodes of which only ends are seen."""
    returns: bool = False
    """It comes back when it was told to."""
    grace_s: float = 0.0
    """How much later than `due` it may begin, once it waits, and still be quite likely in time."""
    priority: int = 3
    key: float = 0.0
    """Its place in the order of latest starts, or in that of a policy that knows no other."""
    rank: float = 0.0
    """Its place among the requests of its tenant."""
    account: Account | None = None
    """Its tenant's, once there are several tenants."""
    payer: Account | None = None
    """The account that it stands with in the queue."""
    output: float = 0.0
    """Predicted output tokens."""
    charged: float = -1.0
    """Output tokens already charged to the account; -1 before it is dispatched."""
    drawn: int = 0
    """Bits of the heaps of its queue that its entry was taken out of, while a pass looks at it."""
    own_s: float = 0.0
    """Predicted prefill seconds, at the best node while waiting, at its node afterwards."""
    waiting: bool = False
    node: Node | None = None
    uncached: int = 0
    forwarded: float = 0.0
    ready_at: float = 0.0
    """When its first token was predicted to come, as it was forwarded."""
    done_at: float = 0.0
    """When its prefill was predicted to be done, for answers whose first token cannot be seen."""
    first: float = -1.0
    attempt: int = 0
    owed: bool = False
    """It was sent because its class, or its priority, is owed a share: it is not called back."""
    recalls: int = 0
    """Times it was called back from a node."""
    twin: Flight | None = None
    """The same request on a second node, until one of the two shows a first byte."""
    tried: int = 0
    """Bits of the nodes that failed it."""
    length: Survival = UNKNOWN
    """How long its answer may be."""
    quota: int = 0
    """Output tokens to reserve, or reserved."""
    counted: int = 0
    """Output tokens that were learned from already."""
    prompt_kv: int = 0
    """KV memory of its prompt on its node."""
    shares: bool = False
    """Its blocks are counted apart, once for all that hold them."""
    clock: float = -1.0
    """The node's count of tokens at its first."""
    claim: Node | None = None
    """The node that keeps memory for it."""

    @property
    def patient(self) -> bool:
        """It has no deadline, and may wait as long as it takes."""
        return self.task.patient or self.request.patient
