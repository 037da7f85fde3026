"""One measured figure beside its goal, and the table of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import NamedTuple


class Row(NamedTuple):
    name: str
    value: float | None
    """None when it could not be measured; `note` says why."""
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        if self.at_most is None and self.at_least is None:
            return ""
        met = (self.at_most is None or self.value <= self.at_most) and (self.at_least is None or self.value >= self.at_least)
        return "ok" if met else "MISSED"

    def goal(self) -> str:
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        return f">= {self.at_least:g}" if self.at_least is not None else ""


def show(rows: Iterable[Row]) -> None:
    """Prints the rows as a table."""
    for row in rows:
        value = "-" if row.value is None else f"{row.value:.3g}" if abs(row.value) < 1_000 else f"{row.value:.0f}"
        print(f"{row.name:<58} {value:>9} {row.unit:<12} {row.goal():<9} {row.verdict():<12} {row.note}".rstrip())


def main(measure: Callable[[], list[Row]]) -> None:
    """The command line of one script: a table, or with --json a list of objects."""
    rows = measure()
    if "--json" in sys.argv[1:]:
        print(json.dumps([row._asdict() for row in rows]))
    else:
        show(rows)
