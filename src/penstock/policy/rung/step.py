"""What a rung offers a request: a place in the queue, other nodes, or an answer that the process gives itself."""

from __future__ import annotations

import msgspec


class Step(msgspec.Struct, frozen=True):
    """Exactly one of the three."""

    wait: bool = False
    """From here on it may wait in the queue."""
    divert: bool = False
    """The process takes it; the core hears of it no more."""
    lane: str = ""
    """Be served by this lane's nodes."""
    model: str = ""
    """The model to ask them for; empty: the one asked for so far."""


WAIT = Step(wait=True)
DIVERT = Step(divert=True)
