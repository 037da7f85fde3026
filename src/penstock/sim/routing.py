"""What routing does where nothing is refused: times to the first token, prefix hits beside those of one pool, and output, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.sim.report import Json, percent, seconds

if TYPE_CHECKING:
    from rich.table import Table


def columns(first: str, *others: str) -> Table:
    from rich.table import Table

    made = Table(box=None, padding=(0, 1), header_style="bold")
    made.add_column(first, no_wrap=True)
    for name in others:
        made.add_column(name, justify="right", no_wrap=True)
    return made


def table(rows: Sequence[Json]) -> Table:
    made = columns("preset", "TTFT mean", "p50", "p90", "p99", "ITL p50", "cached", "one pool", "output/s")
    for row in rows:
        output = row["output_tokens_per_s"]
        made.add_row(
            " ".join(part for part in (row.get("setting"), row["preset"]) if part),
            *(seconds(row["ttft_s"][key]) for key in ("mean", "p50", "p90", "p99")),
            seconds(row["itl_s"]["p50"]),
            percent(row["prefix_hit"]),
            percent(row["pool_hit"]),
            "-" if output is None else f"{output:,.0f}",
        )
    return made
