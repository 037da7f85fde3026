"""What was read of a call."""

from __future__ import annotations

import msgspec

NO_METADATA: dict[str, str] = {}
"""Shared by the calls of which none is read."""


class Call(msgspec.Struct, frozen=True, gc=False):
    """A call as read from its body."""

    model: str
    """The engine's name for it, aliases resolved."""
    asked_model: str
    """The name the caller used."""
    stream: bool
    usage_asked: bool
    """Whether the caller wants the usage chunk at the end of a stream."""
    max_tokens: int
    """The caller's cap on output tokens; 0 when none was given."""
    prompt_tokens: int
    """Estimated from bytes, see `wire.prompt`."""
    blocks: tuple[int, ...]
    """Hashes of the prompt's prefix blocks, see `wire.prompt`."""
    body: bytes
    """What to send on: the object that came in, unless a rewrite was needed."""
    metadata: dict[str, str] = NO_METADATA
    """Those fields of `metadata` that were asked for, as text."""
    choices: int = 1
    """Answers that are computed: `n`, or `best_of`."""
    thinks: bool | None = None
    """Whether thoughts were asked for (True) or none (False); None where nothing was said."""
    tools: bool = False
    """Whether tools are offered."""
    structured: bool = False
    """Whether the answer's form is prescribed."""
    session: str = ""
    """What the body says of the conversation it belongs to."""
    difficulty: float = 0.0
    """See `wire.difficulty`; 0 where no rule asks."""
    plain: bool = False
    """One answer of text alone, as far as was read: no tools, no log probabilities."""
