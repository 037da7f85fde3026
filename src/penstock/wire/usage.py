"""The token counts an engine states at the end of an answer."""

from __future__ import annotations

import re

import msgspec

from penstock.wire.counts import Answer, Counts, Usage

TAIL_BYTES = 2_048
"""Usage is the last or nearly the last key of an answer."""
TOKENS_MAX = 1_000_000_000
"""Counts above it, and below zero, are taken for no count."""

_KEY = b'"usage"'
_ANSWER = msgspec.json.Decoder(Answer)
_COUNTS = msgspec.json.Decoder(Counts)
_VALUE = re.compile(rb"\s*:\s*(\{(?:[^{}]|\{[^{}]*\})*\})").match
"""An object that holds objects at most one level deep."""


def of(counts: Counts) -> Usage:
    """Telemetry is input: what cannot be a count is none."""
    details, cached = counts.prompt_tokens_details, counts.prompt_cache_hit_tokens
    if details is not None and details.cached_tokens is not None:
        cached = details.cached_tokens
    return Usage(_count(counts.prompt_tokens), _count(counts.completion_tokens), -1 if cached is None else _count(cached))


def usage(body: bytes) -> Usage | None:
    """Token counts of a whole JSON answer; None when it states none or is no JSON.

    Reads the tail alone where it can: the last top-level key of a large answer costs the same as of a small one.
    """
    at = body.rfind(_KEY, -TAIL_BYTES) if len(body) > TAIL_BYTES else -1
    if at >= 0 and (found := _in_tail(body[at + len(_KEY) :])) is not None:
        return found
    try:
        counts = _ANSWER.decode(body).usage
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    return None if counts is None else of(counts)


def _in_tail(tail: bytes) -> Usage | None:
    found = _VALUE(tail)
    if found is None:
        return None
    try:
        return of(_COUNTS.decode(found[1]))
    except msgspec.MsgspecError:
        return None


def _count(number: int | None) -> int:
    return number if number is not None and 0 <= number <= TOKENS_MAX else -1
