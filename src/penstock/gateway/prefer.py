"""What a caller prefers (RFC 7240)."""

from __future__ import annotations


def wants_ticket(prefer: str) -> bool:
    """Whether a Prefer header asks for `respond-async`."""
    return any(part.partition(";")[0].strip().lower() == "respond-async" for part in prefer.split(","))
