"""How much a request asks of the model, from 0 to 1.

What its caller says in `metadata.difficulty` counts: a number, clipped to 0 and 1. What is no finite number (`hard`, `nan`, an object)
is as if nothing were said, for it is a hint and no error: then it is estimated.

The estimate looks only at what was read of the call anyway. A longer prompt holds more to keep in view, a longer answer is asked of
who is to explain or to write, and with tools the model has to choose among them. None of these is the difficulty itself: a short
riddle may be hard. It tells small talk from long work, which is what pools of unlike nodes are chosen by; who knows better, says so.
"""

from __future__ import annotations

from math import isfinite, log2

NAME = "difficulty"
"""The field of `metadata`."""
LONGEST = 32
"""Characters of what may be a number."""
PROMPT_LEAST, PROMPT_MOST = 64, 32_768
"""Prompts of so many tokens count 0 and 1; between, each doubling counts the same."""
ANSWER_LEAST, ANSWER_MOST = 64, 8_192
PROMPT_SHARE = 0.6
"""Of the prompt in the estimate, where the caller says how long the answer may be; else it is all there is."""
TOOLS = 0.15
"""Added where there are tools."""


def graded(said: str | None, prompt_tokens: int, max_tokens: int, tools: bool = False) -> float:
    """`said` is the field's text, None without one; `max_tokens` 0 without a cap."""
    value = None if said is None else number(said)
    return estimate(prompt_tokens, max_tokens, tools) if value is None else min(1.0, max(0.0, value))


def estimate(prompt_tokens: int, max_tokens: int, tools: bool = False) -> float:
    found = part(prompt_tokens, PROMPT_LEAST, PROMPT_MOST)
    if max_tokens:
        found = PROMPT_SHARE * found + (1.0 - PROMPT_SHARE) * part(max_tokens, ANSWER_LEAST, ANSWER_MOST)
    return min(1.0, found + TOOLS) if tools else found


def part(tokens: int, least: int, most: int) -> float:
    """0 up to `least`, 1 from `most` on."""
    return min(1.0, max(0.0, log2(max(1, tokens) / least) / log2(most / least)))


def number(text: str) -> float | None:
    """The finite number that the text is."""
    if len(text) > LONGEST or not text.isascii() or "_" in text:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None
