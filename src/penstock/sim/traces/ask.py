"""Which part of a trace is wanted, and how fast."""

from __future__ import annotations

from math import inf, isfinite

import msgspec

from penstock.errors import TraceError


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A reader of recorded rows gives all of them and `arrival.cut` selects; a reader that generates rows makes only these."""

    start_s: float = 0.0
    """Seconds from the trace's start."""
    end_s: float = inf
    speedup: float = 1.0
    limit: int | None = None
    seed: int = 0


def window(text: str) -> tuple[float, float]:
    """`START:END` as seconds from the trace's start: `600:1200`, `:600`, `600:`, `01:30:02:00`, `:00:10`, `09:29:30:09:31:00`.

    Either side may be empty. A side is seconds, HH:MM or HH:MM:SS; both sides are of one kind. Raises TraceError.
    """
    for start, end in splits(text.strip().split(":")):
        try:
            first, last = clock(start, 0.0), clock(end, inf)
        except ValueError:
            continue
        if first >= last:
            raise TraceError(f"--window {text}: ends before it starts")
        return first, last
    raise TraceError(f"--window {text}: expected START:END in seconds or HH:MM[:SS], such as 600:1200, :600 or 09:00:10:30")


def splits(parts: list[str]) -> list[tuple[list[str], list[str]]]:
    """The one way a window's parts can be meant: an empty side, or two sides of the same length."""
    if len(parts) == 1:
        return []
    if parts[0] == "":
        return [([], parts[1:])]
    if parts[-1] == "":
        return [(parts[:-1], [])]
    half = len(parts) // 2
    return [(parts[:half], parts[half:])] if len(parts) % 2 == 0 else []


def clock(parts: list[str], empty: float) -> float:
    """Seconds of [seconds], [HH, MM] or [HH, MM, SS]; `empty` for no part. Raises ValueError."""
    if not parts or parts == [""]:
        return empty
    if len(parts) > 3:
        raise ValueError(parts)
    numbers = [float(part) for part in parts]
    if not all(isfinite(number) and number >= 0.0 for number in numbers):
        raise ValueError(parts)
    if len(numbers) == 1:
        return numbers[0]
    hours, minutes, *rest = numbers
    return hours * 3600.0 + minutes * 60.0 + sum(rest)
