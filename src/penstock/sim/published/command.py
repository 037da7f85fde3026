"""`penstock simulate --scenario mooncake`, `llmd` and `deepseek`: a published setting, its baselines and ours, and whether ours does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from math import inf
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.errors import TraceError
from penstock.sim import routing, traces
from penstock.sim.arrival import Arrival
from penstock.sim.published import deepseek, llmd, mooncake
from penstock.sim.published.figure import Figure
from penstock.sim.report import Json, percent, seconds
from penstock.sim.run import Watch
from penstock.sim.traces.ask import Ask as Part

if TYPE_CHECKING:
    from rich.table import Table

SCENARIOS = {"mooncake": mooncake.ABOUT, "llmd": llmd.ABOUT, "deepseek": deepseek.ABOUT}
TRACED: dict[str, tuple[Callable[[Sequence[Arrival], int, Watch | None], list[Json]], Callable[[Sequence[Json]], list[Figure]]]] = {
    "mooncake": (mooncake.results, mooncake.figures),
    "deepseek": (deepseek.results, deepseek.figures),
}
TRACE = "mooncake_conversation.jsonl.gz"
WHERE = "conversation_trace.jsonl of kvcache-ai/Mooncake's FAST'25 release"


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    scenario: str
    trace: Path | None = None
    seed: int = 0
    as_json: bool = False


def alone(scenario: str, flags: list[str]) -> None:
    """Raises TraceError for options that a published setting, with its own load and nodes, has no use for."""
    taken = "--seed and --json" if scenario == "llmd" else "--trace, --seed and --json"
    if scenario == "llmd" and "--trace" in flags:
        raise TraceError("give --trace FILE or --scenario NAME, not both")
    flags = [flag for flag in flags if flag != "--trace"]
    if flags:
        raise TraceError(f"{', '.join(flags)}: not with --scenario {scenario}, which takes {taken}")


def run(ask: Ask) -> bool:
    """Simulate and print; whether every figure is met. Raises TraceError."""
    began = monotonic()
    arrivals = conversation(ask) if ask.scenario in TRACED else []
    with ExitStack() as stack:
        rows, figures = played(ask, arrivals, progress(stack))
    if ask.as_json:
        print(msgspec.json.format(msgspec.json.encode(answer(ask, rows, figures)), indent=2).decode())
    else:
        report(ask, rows, figures, monotonic() - began)
    return all(figure.met for figure in figures)


def conversation(ask: Ask) -> list[Arrival]:
    if ask.trace is None:
        raise TraceError(f"--scenario {ask.scenario}: give --trace FILE, {WHERE}")
    return traces.read(ask.trace, None, Part(start_s=0.0, end_s=inf, speedup=1.0, limit=None, seed=ask.seed))


def played(ask: Ask, arrivals: Sequence[Arrival], watch: Watch | None) -> tuple[list[Json], list[Figure]]:
    if ask.scenario not in TRACED:
        rows = llmd.results(ask.seed, watch)
        return rows, llmd.figures(rows)
    results, figures = TRACED[ask.scenario]
    rows = results(arrivals, ask.seed, watch)
    return rows, figures(rows)


def answer(ask: Ask, rows: Sequence[Json], figures: Sequence[Figure]) -> dict[str, Any]:
    return {"scenario": ask.scenario, "seed": ask.seed, "results": rows, "figures": [figure.row() for figure in figures]}


def progress(stack: ExitStack) -> Watch | None:
    """What runs, on stderr, for a person."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console

    status = stack.enter_context(Console(stderr=True).status("simulating"))
    return lambda name, ended: status.update(f"{name}: {ended:,} requests")


def report(ask: Ask, rows: Sequence[Json], figures: Sequence[Figure], wall_s: float) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(f"scenario {ask.scenario}: {SCENARIOS[ask.scenario]}; nothing refused; {wall_s:.0f} s")
    console.print(routing.table(rows))
    console.print("\n[bold]figures[/bold]")
    console.print(verdicts(figures))


def verdicts(figures: Sequence[Figure]) -> Table:
    made = routing.columns("figure", "published", "here", "asked for", "")
    for figure in figures:
        theirs = "-" if figure.theirs is None else worth(figure.theirs, figure.unit)
        verdict = "" if not figure.judged else "pass" if figure.met else "[bold]FAIL[/bold]"
        made.add_row(figure.what, theirs, worth(figure.ours, figure.unit), expected(figure), verdict)
    return made


def expected(figure: Figure) -> str:
    least, most = (None if bound is None else worth(bound, figure.unit) for bound in (figure.least, figure.most))
    if least and most:
        return f"{least} to {most}"
    return f"at least {least}" if least else f"at most {most}" if most else ""


def worth(value: float, unit: str) -> str:
    if unit == "%":
        return percent(value)
    return seconds(value) if unit == "s" else f"{value:,.0f}{unit}" if unit == "/s" else f"{value:.4f}".rstrip("0").rstrip(".")
