"""Token counts, as they stand in answers and as they are told."""

from __future__ import annotations

from msgspec import Struct


class Details(Struct, gc=False):
    cached_tokens: int | None = None


class Counts(Struct, gc=False):
    """`usage` as it stands in an answer."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: Details | None = None
    prompt_cache_hit_tokens: int | None = None
    """DeepSeek's name for the cached ones."""


class Usage(Struct, frozen=True, gc=False):
    """Token counts; -1 where the engine gave none."""

    prompt_tokens: int = -1
    output_tokens: int = -1
    cached_tokens: int = -1


class Answer(Struct, gc=False):
    usage: Counts | None = None
