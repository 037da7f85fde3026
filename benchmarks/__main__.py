"""`make bench`: every benchmark in turn, in one table. With names, only those: `make bench ARGS="cost overload"`."""

from __future__ import annotations

import sys
from importlib import import_module

from benchmarks.row import Row, show

ALL = (
    "startup", "decision", "inprocess", "preempt", "simulate", "routing", "goodput", "memory", "fairness", "thoughts", "cost", "limits",
    "overload", "unknown", "eta", "returns", "hashing", "herding",
)  # fmt: skip


def run(names: list[str]) -> int:
    """The exit code: 0 when no goal was missed."""
    unknown = [name for name in names if name not in ALL]
    if unknown:
        print(f"penstock: unknown benchmark {unknown[0]}; there are {', '.join(ALL)}", file=sys.stderr)
        return 2
    missed = 0
    for name in names or ALL:
        rows: list[Row] = import_module(f"benchmarks.{name}").measure()
        show(rows)
        sys.stdout.flush()
        missed += sum(row.verdict() == "MISSED" for row in rows)
    print(f"{missed} goals missed" if missed else "every goal that was measured is met")
    return min(missed, 1)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
