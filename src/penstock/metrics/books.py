"""The rows of the books: one of a class, of a node, of a tenant, and of a request that lives."""

from __future__ import annotations

from math import inf

from penstock.core.classify import TaskClass
from penstock.core.returns import Key
from penstock.facts import Failure, Outcome
from penstock.metrics.catalog import STEPS, WAITS, WHOLES, WRITES
from penstock.metrics.histogram import Histogram


class ClassBook:
    """The numbers of one task class."""

    __slots__ = (
        "arrivals", "bounded", "cached_tokens", "continued", "duration_s", "hedges",
        "met", "missed", "outcomes", "output_tokens", "prompt_tokens", "queue_s",
        "recalls", "returned", "rungs", "task", "tpot_s", "ttft_s",
    )  # fmt: skip

    def __init__(self, task: TaskClass) -> None:
        self.follow(task)
        self.arrivals = self.prompt_tokens = self.cached_tokens = self.output_tokens = self.met = self.missed = self.recalls = (
            self.hedges
        ) = self.continued = 0
        self.rungs: dict[str, int] = {}
        self.returned = dict.fromkeys(("true", "false"), 0)
        """Callers that came back when they were told to, by whether they were let in."""
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.queue_s, self.ttft_s, self.duration_s, self.tpot_s = Histogram(WAITS), Histogram(WAITS), Histogram(WHOLES), Histogram(STEPS)

    def follow(self, task: TaskClass) -> None:
        self.task = task
        self.bounded = min(task.ttft_s, task.tpot_s, task.total_s) < inf


class NodeBook:
    """The numbers of one node."""

    __slots__ = ("cached_tokens", "failures", "forwards", "itl_s", "losses", "output_tokens", "prompt_tokens", "retries")

    def __init__(self) -> None:
        self.forwards = self.retries = self.losses = self.prompt_tokens = self.cached_tokens = self.output_tokens = 0
        self.failures = dict.fromkeys(Failure, 0)
        self.itl_s = Histogram(STEPS)


class TenantBook:
    __slots__ = ("requests", "tokens")

    def __init__(self) -> None:
        self.requests = self.tokens = 0


class Live:
    """A request that has not ended. Times are -1 until they come."""

    __slots__ = (
        "arrived", "book", "climbed", "due", "failed", "first", "forwards", "itl_s", "key", "node", "output_tokens", "prompt_tokens",
        "returned", "second", "stream", "tenant",
    )  # fmt: skip

    def __init__(
        self, arrived: float, book: ClassBook, tenant: TenantBook, prompt_tokens: int, stream: bool, key: Key,
    ) -> None:  # fmt: skip
        self.arrived = arrived
        self.book = book
        self.tenant = tenant
        self.prompt_tokens = prompt_tokens
        self.stream = stream
        self.node: NodeBook | None = None
        self.forwards = 0
        self.failed = False
        """Its last node failed it."""
        self.due = -1.0
        """When the first token was predicted to come."""
        self.first = -1.0
        self.output_tokens = 0.0
        """Predicted; 0 while nothing was known."""
        self.itl_s = 0.0
        """Predicted time between tokens; 0 while nothing was known."""
        self.key = key
        self.returned = False
        """It came back when it was told to, and it is not yet known whether it gets in."""
        self.second: NodeBook | None = None
        """The second node that it is on, until one of the two is the first."""
        self.climbed = 0
        """Rungs of its ladder that are booked."""

    def climb(self, rungs: tuple[str, ...]) -> None:
        """Book those that it took since it was last heard of."""
        booked = self.book.rungs
        for rung in rungs[self.climbed :]:
            booked[rung] = booked.get(rung, 0) + 1
        self.climbed = len(rungs)

    def decide(self, node: NodeBook | None) -> None:
        """Of two nodes this one serves it."""
        if node is not None:
            self.node = node
        self.second = None


class JobBook:
    """The numbers of durable jobs; those of now are kept by who runs them, see `gateway.tickets`."""

    __slots__ = ("ended", "queued", "retries", "running", "store_s", "unstored")

    def __init__(self) -> None:
        self.queued = self.running = self.retries = self.unstored = 0
        self.ended = dict.fromkeys(("completed", "failed", "cancelled", "expired"), 0)
        self.store_s = Histogram(WRITES)
