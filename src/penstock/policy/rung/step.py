"""What a rung offers a request: a place in the queue, other nodes, or an answer that the process gives itself."""

from __future__ import annotations

import msgspec


class Step(msgspec.Struct, frozen=True):
    """Exactly one of `wait`, `divert`, `lane`, `pool`."""

    wait: bool = False
    """From here on it may wait in the queue."""
    divert: bool = False
    """The process takes it; the core hears of it no more."""
    lane: str = ""
    """Be served by the nodes to which requests for this model go."""
    pool: str = ""
    """Be served by the nodes of this pool, or of the first of its fallbacks that has the model."""
    model: str = ""
    """The model to ask them for; empty: the one asked for so far."""


WAIT = Step(wait=True)
DIVERT = Step(divert=True)
