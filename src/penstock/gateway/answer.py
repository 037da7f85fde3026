"""Which of an engine's answers callers may see."""

from __future__ import annotations

import msgspec

from penstock.facts import Failure

EARLY_BYTES = 65_536
"""Kept back of a stream that shows no content, and read of an answer that is thrown away."""


class Choice(msgspec.Struct, gc=False):
    finish_reason: str | None = None


class Whole(msgspec.Struct, gc=False):
    """How the choices of a JSON answer ended."""

    choices: list[Choice] = []


def is_answer(status: int) -> bool:
    """Whether callers may see it. An engine's 401, 402 and 403 are about our key and account, not the caller's; 429 and 503 mean "busy"."""
    return 200 <= status < 300 or (400 <= status < 500 and status not in (401, 402, 403, 407, 429))


def failure_of(status: int) -> Failure:
    if status in (429, 503):
        return Failure.BUSY
    return Failure.STATUS if status >= 400 else Failure.PROTOCOL
