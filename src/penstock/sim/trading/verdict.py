"""What DESIGN.md says of the reference case, held against what the runs showed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from penstock.config import Class

NEAR = 0.1
"""Figures of the story's beginning are met within this share."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure: `least` and `most` are what meets it."""

    run: str
    way: str
    what: str
    unit: str
    measured: float
    least: float | None = None
    most: float | None = None

    @property
    def met(self) -> bool:
        return (self.least is None or self.measured >= self.least) and (self.most is None or self.measured <= self.most)

    def row(self) -> dict[str, Any]:
        return {**msgspec.structs.asdict(self), "met": self.met}


def near(value: float) -> dict[str, float]:
    return {"least": value * (1 - NEAR), "most": value * (1 + NEAR)}


def figures(results: list[dict[str, Any]], classes: Sequence[Class]) -> list[Figure]:
    """Of the bell, the ramp and the overload, each before and after."""
    found = {(result["run"], result["way"]): result for result in results}
    old, ramp, bell = found["ramp", "before"]["window"], found["ramp", "after"]["window"], found["bell", "after"]
    top = max(bell["whole"]["by_class"], key=lambda row: row["priority"])
    return [
        Figure(run="ramp", way="before", what="served", unit="/s", measured=old["served_per_s"], **near(8_000.0)),
        Figure(run="ramp", way="before", what="utilisation", unit="%", measured=old["utilisation"], **near(0.75)),
        Figure(run="ramp", way="before", what="p99 of answers", unit="s", measured=old["whole_s"]["p99"] or 0.0, **near(3.2)),
        Figure(run="ramp", way="before", what='"server busy"', unit="%", measured=old["refused"], least=0.01),
        Figure(run="bell", way="after", what="offered at the peak", unit="/s", measured=bell["window"]["offered_per_s"], least=11_500.0),
        Figure(run="bell", way="after", what="p99 of all admitted", unit="s", measured=bell["whole"]["whole_s"]["p99"], most=0.45),
        Figure(
            run="bell", way="after", what=f"p99 of {top['class']}", unit="s", measured=top["whole_s"]["p99"] or 9e9,
            most=bell["whole"]["whole_s"]["p99"],
        ),
        Figure(run="ramp", way="after", what="served", unit="/s", measured=ramp["served_per_s"], least=15_000.0),
        Figure(run="ramp", way="after", what="utilisation", unit="%", measured=ramp["utilisation"], least=0.92),
        *overload(found["overload", "after"]["whole"]["by_class"], classes),
    ]  # fmt: skip


def overload(rows: list[dict[str, Any]], classes: Sequence[Class]) -> list[Figure]:
    """The highest class is in time, and each class that has a floor gets it."""
    top = max(rows, key=lambda row: row["priority"])
    floors = {one.name: one.floor for one in classes if one.floor}
    return [
        Figure(run="overload", way="after", what=f"{top['class']} in time", unit="%", measured=top["goodput"], least=0.999),
        *(
            Figure(run="overload", way="after", what=f"{name}'s work", unit="%", measured=row["work"] or 0.0, least=floors[name])
            for row in rows
            if (name := row["class"]) in floors
        ),
    ]
