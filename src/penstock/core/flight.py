"""A request while it lives in the core: the facts, its class, its place and what was promised for it."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from penstock.core.classify import TaskClass
from penstock.core.ladder import USUAL, Ladder
from penstock.core.lengths import Lengths, Survival
from penstock.facts import Form, Request
from penstock.policy.views import FlightView

if TYPE_CHECKING:
    from penstock.core.claims import Claims
    from penstock.core.fairness import Account
    from penstock.core.fleet import Node
    from penstock.core.lane import Lane

SPARE_S = 0.2
"""What is kept in hand, beside the time that a node needs for a request, before something else is tried for it at the last moment."""


UNKNOWN = Lengths().start
OWN = (
    "account", "aside", "attempt", "by_end", "charged", "claim", "claims", "clock", "counted", "done_at", "drawn", "emitted", "ends",
    "expires", "first", "form", "forwarded", "grace_s", "key", "ladder", "lane", "length", "losses", "loyal_at", "node", "owed", "payer",
    "prompt_kv", "queued", "quota", "rank", "ready_at", "recalls", "returns", "rung", "shares", "taken", "tried", "twin", "uncached",
    "usual", "waiting", "waits",
)  # fmt: skip
SEEN = ("arrived", "before", "due", "model", "output", "own_s", "priority", "request", "task")
"""What policies see of it, too."""


class Flight(FlightView):
    """Times are seconds on the core's clock."""

    __slots__ = OWN

    def __init__(
        self, request: Request, task: TaskClass, lane: Lane, arrived: float, ladder: Ladder = USUAL, model: str = "",
        waits: bool = True, priority: int = 3,
    ) -> None:  # fmt: skip
        self.request = request
        self.task = task
        self.lane = lane
        self.arrived = arrived
        self.before = -1
        self.ladder = ladder
        self.model = model
        """The model that serves it: the one asked for, until a rung names another."""
        self.waits = waits
        """It may wait in the queue."""
        self.rung = 0
        """The next of its ladder's rungs to try."""
        self.aside = ""
        """The last pool that a rung tried for it in place of its own; empty: none."""
        self.taken: tuple[str, ...] = ()
        """Rungs taken, in order."""
        self.queued = 0.0
        """When it began to wait."""
        self.due = inf
        """When its first token is due."""
        self.expires = inf
        """When it can no longer be started in time, or has waited for longer than may be."""
        self.ends = inf
        """When its whole answer is due."""
        self.by_end = False
        """Only its end counts: prefill is part of it, and how much a node has at once is what it is limited by."""
        self.usual = 0.0
        """A middle quantile of its class's answers' times, as a share of a node's mean; of nodes of which only ends are seen."""
        self.returns = False
        """It comes back when it was told to."""
        self.grace_s = 0.0
        """How much later than `due` it may begin, once it waits, and still be quite likely in time."""
        self.priority = priority
        self.key = 0.0
        """Its place in the order of latest starts, or in that of a policy that knows no other."""
        self.rank = 0.0
        """Its place among the requests of its tenant."""
        self.account: Account | None = None
        """Its tenant's, once there are several tenants."""
        self.payer: Account | None = None
        """The account that it stands with in the queue."""
        self.output = 0.0
        """Predicted output tokens."""
        self.charged = -1.0
        """Output tokens already charged to the account; -1 before it is dispatched."""
        self.drawn = 0
        """Bits of the heaps of its queue that its entry was taken out of, while a pass looks at it."""
        self.own_s = 0.0
        """Predicted prefill seconds, at the best node while waiting, at its node afterwards."""
        self.waiting = False
        self.node: Node | None = None
        self.uncached = 0
        self.forwarded = 0.0
        self.ready_at = 0.0
        """When its first token was predicted to come, as it was forwarded."""
        self.done_at = 0.0
        """When its prefill was predicted to be done, for answers whose first token cannot be seen."""
        self.first = -1.0
        self.attempt = 0
        self.owed = False
        """It was sent because its class, or its priority, is owed a share: it is not called back."""
        self.recalls = 0
        """Times it was called back from a node."""
        self.twin: Flight | None = None
        """The same request on a second node, until one of the two shows a first byte."""
        self.tried = 0
        """Bits of the nodes that failed it."""
        self.length: Survival = UNKNOWN
        """How long its answer may be."""
        self.quota = 0
        """Output tokens to reserve, or reserved."""
        self.counted = 0
        """Output tokens that were learned from already."""
        self.prompt_kv = 0
        """KV memory of its prompt on its node."""
        self.shares = False
        """Its blocks are counted apart, once for all that hold them."""
        self.clock = -1.0
        """The node's count of tokens at its first."""
        self.claims: Claims | None = None
        """Admission's books, where it was charged to them too."""
        self.loyal_at = -1.0
        """Since when it has let others pass, because the node that has its prefix is full."""
        self.claim: Node | None = None
        """The node that keeps memory for it."""
        self.form: Form | None = None
        """What its node must be able to go on with, since another one broke off."""
        self.emitted = 0
        """Tokens of its answer that nodes before its present one wrote: they are part of the prompt now."""
        self.losses = 0
        """Nodes that broke off its answer."""

    def copy(self) -> Flight:
        other = Flight(self.request, self.task, self.lane, self.arrived)
        for name in OWN + SEEN:
            setattr(other, name, getattr(self, name))
        return other

    def pool(self) -> str:
        return self.aside or self.lane.pool

    @property
    def patient(self) -> bool:
        """It has no deadline, and may wait as long as it takes."""
        return self.task.patient or self.request.patient
