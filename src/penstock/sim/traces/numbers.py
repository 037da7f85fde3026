"""Numbers in traces, checked: a wrong one is an error with its row's line, never a quiet zero."""

from __future__ import annotations

from math import inf
from typing import Protocol

from penstock.errors import TraceError

TOKENS_MAX = 100_000_000
SECONDS_MAX = 1e10


class Place(Protocol):
    """Where a value stands, to say so in a message."""

    name: str

    def error(self, message: str) -> TraceError: ...


def tokens(value: object, field: str, place: Place) -> int:
    """A count of tokens, at least 1: an engine that answers at all has read one token and writes one, even if only the end."""
    number = real(value, field, place)
    if number != int(number) or number > TOKENS_MAX:
        raise place.error(f"{field} is {value!r}; expected a whole number of tokens up to {TOKENS_MAX:,}")
    return max(1, int(number))


def seconds(value: object, field: str, place: Place) -> float:
    number = real(value, field, place)
    if number > SECONDS_MAX * 1e3:
        raise place.error(f"{field} is {value!r}; expected a time")
    return number


def real(value: object, field: str, place: Place) -> float:
    """A finite number, not negative, given as a number or as its text."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = -inf
    if isinstance(value, bool) or not 0.0 <= number < inf:
        raise place.error(f"{field} is {value!r}; expected a number, 0 or above")
    return number


def nothing(place: Place) -> TraceError:
    return TraceError("holds no request; give a trace with at least one", file=place.name)
