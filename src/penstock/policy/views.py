"""What each kind of policy looks at, and the one method it has.

Law: views are read, never written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import ClassVar, Protocol

from penstock.facts import Outcome, Request, Signals
from penstock.policy.rung.step import Step
from penstock.policy.task import TaskClass


class FlightView:
    """A request in the core, as policies see it. Times are seconds on the core's clock."""

    __slots__ = ("arrived", "before", "due", "model", "output", "own_s", "priority", "request", "task")

    request: Request
    arrived: float
    before: int
    """Number of the node that served its session last; -1: none, or nobody asked (see `Score`)."""
    due: float
    """When its first token is due; infinite without a deadline."""
    own_s: float
    """Its predicted prefill time."""
    output: float
    """Its predicted output tokens; 0 while unknown."""
    priority: int
    task: TaskClass
    model: str
    """The model that would serve it: the one asked for, until a rung names another."""

    def pool(self) -> str:
        """The pool whose nodes it was last tried on, or is to be; empty for none."""
        raise NotImplementedError


class MemoryView(Protocol):
    """A node's KV memory in tokens; `capacity` is infinite while the size is unknown."""

    @property
    def capacity(self) -> float: ...

    @property
    def reserved(self) -> int: ...


class NodeView:
    """A node, as policies see it."""

    __slots__ = (
        "answer_s", "base_s", "beside_s", "capacity", "cost", "free_at", "index", "max_running", "name", "near", "reported", "running",
        "tag", "token_s",
    )  # fmt: skip

    index: int
    name: str
    tag: bytes
    """Its name, as it is hashed."""
    capacity: float
    """How much it can do beside the others."""
    cost: float
    near: float
    """Share of the gateway's labels that it has."""
    running: int
    """Requests forwarded to it and not ended."""
    max_running: int
    free_at: float
    """When it is predicted to be able to begin another prefill."""
    base_s: float
    """Learned time to first token of an empty prompt."""
    token_s: float
    """Learned prefill seconds a token."""
    answer_s: float
    """Time of a whole answer, where nothing but ends is seen of the node; else 0."""
    beside_s: float
    """What each running request adds to it."""
    reported: Signals

    def kv(self) -> MemoryView:
        raise NotImplementedError


class AdmitView:
    """What is known when a request asks to wait."""

    __slots__ = ("breaks_promise", "crowds_out", "left_s", "predicted_s", "queue_max", "waiting")

    def __init__(self, waiting: int, queue_max: int, predicted_s: float, left_s: float, breaks_promise: bool, crowds_out: bool) -> None:
        self.waiting, self.queue_max = waiting, queue_max
        self.predicted_s = predicted_s
        """Predicted time to its first token from now, at the node and place in the queue that serve it best."""
        self.left_s = left_s
        """Time left until that token is due."""
        self.breaks_promise = breaks_promise
        """Admitting it would make a request admitted earlier, of its own priority, miss its deadline."""
        self.crowds_out = crowds_out
        """Admitting it would leave no room for a prompt length that is being admitted less."""


class Around:
    """What rungs look at beside the request."""

    __slots__ = ("fallbacks", "smaller")

    def __init__(self, smaller: Mapping[str, str], fallbacks: Mapping[str, str]) -> None:
        self.fallbacks = fallbacks
        """Pool -> the one to try when it cannot serve."""
        self.smaller = smaller
        """Model -> the one that may serve in its place."""


class Order(Protocol):
    """Which waiting request goes first: the smallest key. Asked once, when the request begins to wait.

    A class that says `between_tenants = True` orders the requests of each tenant, which take turns by the service they got. One
    that says `yields = True` gives way, as turns do, to requests that would start too late otherwise.
    """

    def key(self, flight: FlightView) -> float: ...


class Admit(Protocol):
    """None to accept, else the outcome to refuse with.

    A class that says `prompt = True` refuses nobody who can start at once, in time, in front of an empty queue: such requests are
    let in without asking it.
    """

    def refusal(self, view: AdmitView) -> Outcome | None: ...


class Score(Protocol):
    """How good each node is for the request: higher is better, one number a node, one call over the whole list.

    A class that says `remembers = True` looks at `FlightView.before`.
    """

    def score(self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float) -> list[float]: ...


class Leader(Protocol):
    """A score that can also pick as `best` does, in one pass: index and score of the node that scores and pick would come to,
    with the same draws. Optional; every request pays for the two steps otherwise.
    """

    def lead(
        self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float, tolerance: float, rng: Random
    ) -> tuple[int, float]: ...


class Pick(Protocol):
    """From scores to the index of one of them."""

    def pick(self, scores: Sequence[float], nodes: Sequence[NodeView], rng: Random) -> int: ...


class Placer(Protocol):
    """A pick that goes by the request itself, and asks for no scores: index of the node, and a score that says why. It is shown all
    nodes that can take the request, however many they are. `by` and `bound` are `policy.hash_by` and the knob `hash_bound`.
    """

    def place(self, flight: FlightView, nodes: Sequence[NodeView], by: Sequence[str], bound: float) -> tuple[int, float]: ...


class Rung(Protocol):
    """What it offers the request, or None. A rung that another node, region or provider serves offers that one's lane."""

    EAGER: ClassVar[bool]
    """It is asked before the request is started, unless the ladder has it wait first."""
    SERVES: ClassVar[bool]
    """Nodes serve the request, which takes time: who waits before it must not wait to the last moment."""

    def step(self, flight: FlightView, around: Around) -> Step | None: ...
