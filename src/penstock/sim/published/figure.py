"""One published figure beside ours, and what meets it."""

from __future__ import annotations

from typing import Any

import msgspec

NEAR = 0.15
"""A baseline within this share of what was published is taken as rebuilt."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    what: str
    unit: str = ""
    """`s`, `%`, `x` (a ratio), `/s`."""
    theirs: float | None = None
    """As published; None where nothing was."""
    ours: float
    least: float | None = None
    most: float | None = None

    @property
    def judged(self) -> bool:
        return self.least is not None or self.most is not None

    @property
    def met(self) -> bool:
        return (self.least is None or self.ours >= self.least) and (self.most is None or self.ours <= self.most)

    def row(self) -> dict[str, Any]:
        return {**msgspec.structs.asdict(self), "met": self.met if self.judged else None}


def rebuilt(what: str, unit: str, theirs: float, ours: float, near: float = NEAR) -> Figure:
    """A baseline's own figure: the world is only of use where this is met."""
    return Figure(what=what, unit=unit, theirs=theirs, ours=ours, least=theirs * (1 - near), most=theirs * (1 + near))
