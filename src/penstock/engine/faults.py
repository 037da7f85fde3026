"""Faults on demand: what a test asks of an engine with POST /faults.

Law: pure.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from penstock.errors import CallError


class Faults(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`{}` clears all. Each call that a fault touches takes one of `count`; without a count faults stay until cleared."""

    status: Annotated[int, Meta(ge=400, le=599)] | None = None
    """Answer calls with this status."""
    stall_s: Annotated[float, Meta(ge=0, le=3_600)] = 0.0
    """Wait so long before a call reaches the engine."""
    cut_after_tokens: Annotated[int, Meta(ge=0)] | None = None
    """Break a call's connection off after so many tokens."""
    slow: Annotated[float, Meta(gt=0, le=1e6)] = 1.0
    """Let every step take so many times as long, whatever the count."""
    count: Annotated[int, Meta(ge=1)] | None = None

    def take(self) -> bool:
        """Whether the next call is touched; uses one of `count` up."""
        if self.status is None and not self.stall_s and self.cut_after_tokens is None:
            return False
        if self.count is None:
            return True
        if self.count == 0:
            return False
        self.count -= 1
        return True


def read(body: bytes) -> Faults:
    try:
        return msgspec.json.decode(body or b"{}", type=Faults)
    except msgspec.MsgspecError as problem:
        raise CallError(400, "invalid_request", str(problem)) from None
