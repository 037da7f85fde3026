"""What happened (past tense) and what to do (imperative): the core's whole input and output.

Everything that changes the core comes in as an Event, so a journal of (now, event) replays to the same actions.
"""

from __future__ import annotations

import msgspec

from penstock.config import Config
from penstock.facts import Failure, Form, Outcome, Request, Signals
from penstock.knobs import Knobs


class Arrived(msgspec.Struct, frozen=True, tag="arrived"):
    """A call came in, read and authorised."""

    request: Request


class FirstToken(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag="first_token"):
    """The first byte of a streamed answer's content came back; of a request on two nodes, of any answer."""

    id: int
    node: str = ""
    """The node it came from; empty where there is only one."""


class Progress(msgspec.Struct, frozen=True, gc=False, tag="progress"):
    """Over the last interval a node's visible streams emitted `tokens` in `stream_s` stream-seconds of decoding."""

    node: str
    tokens: int
    stream_s: float


class Finished(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag="finished"):
    """An answer is complete. Token counts are the engine's usage where it gave one, else our own counts; -1 unknown."""

    id: int
    status: int = 200
    """The engine's status; 4xx counts neither for nor against the node."""
    prompt_tokens: int = -1
    cached_tokens: int = -1
    output_tokens: int = -1
    node: str = ""
    """The node it came from; empty where there is only one."""


class Failed(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag="failed"):
    """A node failed a call that had been forwarded to it."""

    id: int
    failure: Failure
    started: bool = False
    """Bytes of the answer had reached the caller: it cannot be tried anew elsewhere."""
    node: str = ""
    """The node that failed it; empty where there is only one."""
    form: Form | None = None
    """Of an answer that had started: what another node must be able to go on with; None where none can, exactly."""
    emitted_tokens: int = 0
    """What the caller has of such an answer, from all nodes that wrote it."""


class Cancelled(msgspec.Struct, frozen=True, gc=False, tag="cancelled"):
    """The caller left."""

    id: int


class NodeSeen(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag="node_seen"):
    """A probe of a node was answered."""

    node: str
    signals: Signals


class NodeDraining(msgspec.Struct, frozen=True, gc=False, tag="node_draining"):
    """A node takes no new work."""

    node: str


class NodeLost(msgspec.Struct, frozen=True, gc=False, tag="node_lost"):
    """A node does not answer probes; it comes back with NodeSeen."""

    node: str


class KnobsSet(msgspec.Struct, frozen=True, tag="knobs_set"):
    """A control loop or a person turned knobs."""

    knobs: Knobs


class ConfigReplaced(msgspec.Struct, frozen=True, tag="config_replaced"):
    """A new, valid configuration took the old one's place."""

    config: Config


class Tick(msgspec.Struct, frozen=True, gc=False, tag="tick"):
    """Time passed `Core.deadline`."""


Event = (
    Arrived | FirstToken | Progress | Finished | Failed | Cancelled | NodeSeen | NodeDraining | NodeLost | KnobsSet | ConfigReplaced | Tick
)


class Forward(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag="forward"):
    """Send the request to the node now."""

    id: int
    node: str
    why: tuple[float, ...] = ()
    """Raw numbers, see `FORWARD_WHY`."""
    model: str = ""
    """The model to ask for in place of the caller's."""
    rungs: tuple[str, ...] = ()
    """Rungs of its ladder that it took, in order; none when it was served at once as asked."""


FORWARD_WHY = ("queued_s", "predicted_ttft_s", "cached_tokens", "score", "attempt", "output_tokens", "itl_s")


class Reject(msgspec.Struct, frozen=True, gc=False, tag="reject"):
    """End the request without an answer."""

    id: int
    outcome: Outcome
    retry_after_s: float
    """When a retry should be admitted, from the measured drain rate; jittered; at most 120."""
    why: tuple[float, ...] = ()
    """Raw numbers, see `REJECT_WHY`."""


REJECT_WHY = ("queued_s", "predicted_ttft_s", "deadline_s", "queue_length")


class Divert(msgspec.Struct, frozen=True, gc=False, tag="divert"):
    """The process takes the request itself, as the rung says; the core is done with it."""

    id: int
    rung: str
    rungs: tuple[str, ...] = ()
    """Rungs of its ladder that it took, in order, this one last."""
    why: tuple[float, ...] = ()
    """Raw numbers, see `REJECT_WHY`."""


class Hedge(msgspec.Struct, frozen=True, gc=False, tag="hedge"):
    """Send the request to this node too. Who shows the first byte serves it: say so with FirstToken and the node."""

    id: int
    node: str
    why: tuple[float, ...] = ()
    """Raw numbers, see `FORWARD_WHY`."""


class Recall(msgspec.Struct, frozen=True, gc=False, tag="recall"):
    """Stop the request on its node; it waits again. An answer that has begun goes on: say so with FirstToken and the node."""

    id: int
    node: str


class Cancel(msgspec.Struct, frozen=True, gc=False, tag="cancel"):
    """Stop the request on the node; nobody waits for its answer from there."""

    id: int
    node: str


Action = Forward | Reject | Divert | Recall | Hedge | Cancel
