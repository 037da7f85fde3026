"""The reference case as tables for a person."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from penstock.sim.report import percent, seconds
from penstock.sim.trading import collapse, place
from penstock.sim.trading.verdict import Figure

if TYPE_CHECKING:
    from rich.table import Table

RUNS = {**place.RUNS, collapse.RUN.name: collapse.RUN}


def report(scenario: str, scale: float, results: Sequence[dict[str, Any]], figures: Sequence[Figure], wall_s: float) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    requests = sum(result["whole"]["requests"] for result in results)
    console.print(f"scenario {scenario}: {requests:,} requests in {wall_s:.0f} s")
    for run, nodes in {result["run"]: result["nodes"] for result in results}.items():
        fleet = " + ".join(f"{count} x {name}" for name, count in nodes.items())
        console.print(f"{run}: {RUNS[run].about}; {fleet}")
    if scale != 1.0:
        console.print(f"at scale {scale:g}: rates are shown for the whole exchange; the figures to quote are those of scale 1")
    if not figures:
        for run in {result["run"]: None for result in results}:
            console.print(f"\n[bold]{run}[/bold]")
            console.print(parts([result for result in results if result["run"] == run]))
        return
    console.print(ways(results))
    for result in results:
        console.print(f"\n[bold]{result['run']}, {result['way']}[/bold], by class")
        console.print(classes(result["whole"]["by_class"]))
    if figures:
        console.print("\n[bold]figures[/bold]")
        console.print(verdicts(figures))


def columns(first: str, *others: str) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def ways(results: Sequence[dict[str, Any]]) -> Table:
    """One row a run and way: what happened in the run's window, and over all of it."""
    table = columns(
        "run", "offered/s", "served/s", "utilisation", "p50", "p99", "refused", "errors", "p99 of all", "refused", "in time", "cached"
    )
    for result in results:
        part, whole = result["window"], result["whole"]
        table.add_row(
            f"{result['run']}, {result['way']}",
            f"{part['offered_per_s']:,.0f}",
            f"{part['served_per_s']:,.0f}",
            percent(part["utilisation"]),
            seconds(part["whole_s"]["p50"]),
            seconds(part["whole_s"]["p99"]),
            percent(part["refused"]),
            percent(part["errors"]),
            seconds(whole["whole_s"]["p99"]),
            percent(whole["refused"] / whole["requests"]),
            percent(whole["goodput"]),
            percent(whole["prefix_hit"]),
        )
    return table


def parts(results: Sequence[dict[str, Any]]) -> Table:
    """One row a way, over one run: what each part brings."""
    table = columns("way", "served/s", "p99 of all", "refused", "in time", "cached", "class by class in time")
    table.add_column("", overflow="fold")
    for result in results:
        whole = result["whole"]
        table.add_row(
            result["way"],
            f"{result['window']['served_per_s']:,.0f}",
            seconds(whole["whole_s"]["p99"]),
            percent(whole["refused"] / whole["requests"]),
            percent(whole["goodput"]),
            percent(whole["prefix_hit"]),
            " ".join(f"{row['goodput']:.0%}" for row in whole["by_class"]),
            result["about"],
        )
    return table


def classes(rows: Sequence[dict[str, Any]]) -> Table:
    table = columns("class", "priority", "requests", "completed", "refused", "in time", "TTFT p50", "p99", "whole p50", "p99", "work")
    for row in rows:
        table.add_row(
            row["class"],
            str(row["priority"]),
            f"{row['requests']:,}",
            f"{row['completed']:,}",
            percent(row["refused"] / row["requests"]),
            percent(row["goodput"]),
            seconds(row["ttft_s"]["p50"]),
            seconds(row["ttft_s"]["p99"]),
            seconds(row["whole_s"]["p50"]),
            seconds(row["whole_s"]["p99"]),
            percent(row["work"]),
        )
    return table


def verdicts(figures: Sequence[Figure]) -> Table:
    table = columns("figure", "expected", "measured", "")
    for figure in figures:
        name = f"{figure.run}, {figure.way}: {figure.what}"
        table.add_row(name, expected(figure), worth(figure.measured, figure.unit), "pass" if figure.met else "[bold]FAIL[/bold]")
    return table


def expected(figure: Figure) -> str:
    least, most = (None if bound is None else worth(bound, figure.unit) for bound in (figure.least, figure.most))
    if least and most:
        return f"{least} to {most}"
    return f"at least {least}" if least else f"at most {most}"


def worth(value: float, unit: str) -> str:
    if unit == "%":
        return f"{value:.2%}"
    return seconds(value) if unit == "s" else f"{value:,.0f}{unit}"
