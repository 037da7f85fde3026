"""What each kind of policy looks at, and the one method it has.

Law: views are read, never written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import ClassVar, Protocol, runtime_checkable

import msgspec

from penstock.facts import Outcome, Request, Signals
from penstock.policy.rung.step import Step


class TaskView(Protocol):
    """A task class, as policies see it."""

    @property
    def value(self) -> float:
        """What a good answer is worth."""
        ...


class FlightView(Protocol):
    """A request in the core, as policies see it. Times are seconds on the core's clock."""

    @property
    def request(self) -> Request: ...

    @property
    def arrived(self) -> float: ...

    @property
    def due(self) -> float:
        """When its first token is due; infinite without a deadline."""
        ...

    @property
    def own_s(self) -> float:
        """Its predicted prefill time."""
        ...

    @property
    def output(self) -> float:
        """Its predicted output tokens; 0 while unknown."""
        ...

    @property
    def priority(self) -> int: ...

    @property
    def task(self) -> TaskView: ...

    @property
    def model(self) -> str:
        """The model that would serve it: the one asked for, until a rung names another."""
        ...


class MemoryView(Protocol):
    """A node's KV memory in tokens; `capacity` is infinite while the size is unknown."""

    @property
    def capacity(self) -> float: ...

    @property
    def reserved(self) -> int: ...


class NodeView(Protocol):
    """A node, as policies see it."""

    @property
    def index(self) -> int: ...

    @property
    def name(self) -> str: ...

    @property
    def running(self) -> int:
        """Requests forwarded to it and not ended."""
        ...

    @property
    def max_running(self) -> int: ...

    @property
    def free_at(self) -> float:
        """When it is predicted to be able to begin another prefill."""
        ...

    @property
    def base_s(self) -> float:
        """Learned time to first token of an empty prompt."""
        ...

    @property
    def token_s(self) -> float:
        """Learned prefill seconds a token."""
        ...

    @property
    def answer_s(self) -> float:
        """Time of a whole answer, where nothing but ends is seen of the node; else 0."""
        ...

    @property
    def beside_s(self) -> float:
        """What each running request adds to it."""
        ...

    @property
    def memory(self) -> MemoryView: ...

    @property
    def reported(self) -> Signals: ...


class AdmitView(Protocol):
    """What is known when a request asks to wait."""

    @property
    def waiting(self) -> int: ...

    @property
    def queue_max(self) -> int: ...

    @property
    def predicted_s(self) -> float:
        """Predicted time to its first token from now, at the node and place in the queue that serve it best."""
        ...

    @property
    def left_s(self) -> float:
        """Time left until that token is due."""
        ...

    @property
    def breaks_promise(self) -> bool:
        """Admitting it would make a request admitted earlier, of its own priority, miss its deadline."""
        ...

    @property
    def crowds_out(self) -> bool:
        """Admitting it would leave no room for a prompt length that is being admitted less."""
        ...


class Around(msgspec.Struct, frozen=True, gc=False):
    """What rungs look at beside the request."""

    smaller: Mapping[str, str]
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
    """How good each node is for the request: higher is better, one number a node, one call over the whole list."""

    def score(self, flight: FlightView, nodes: Sequence[NodeView], cached: Sequence[int], now: float) -> list[float]: ...


@runtime_checkable
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


class Rung(Protocol):
    """What it offers the request, or None. A rung that another node, region or provider serves offers that one's lane."""

    EAGER: ClassVar[bool]
    """It is asked before the request is started, unless the ladder has it wait first."""
    SERVES: ClassVar[bool]
    """Nodes serve the request, which takes time: who waits before it must not wait to the last moment."""

    def step(self, flight: FlightView, around: Around) -> Step | None: ...
