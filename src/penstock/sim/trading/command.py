"""`penstock simulate --scenario trading`: all runs, before and after, held against DESIGN's figures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from math import isfinite
from time import monotonic
from typing import Any

import msgspec

from penstock.config import Config
from penstock.errors import TraceError
from penstock.sim.trading import collapse, place, runs, show, verdict
from penstock.sim.trading.ablation import ablations

SCENARIOS = {
    "trading": "an exchange's opening bell before and after: bell, ramp and overload, held against the figures of the reference case",
    "collapse": "the exchange on fewer nodes past what round robin holds: seconds and errors before, and their absence after",
}
SCALE_LEAST = 0.02
ABLATED = ("ramp", "overload")
"""What prefixes and hashing bring shows at saturation, what classes and admission bring beyond it."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    scenario: str
    config: Config
    scale: float = 1.0
    seed: int = 0
    ablate: bool = False
    as_json: bool = False


def alone(scenario: str, flags: list[str]) -> None:
    """Raises TraceError for options that this scenario, with its own loads and nodes, has no use for."""
    if "--trace" in flags:
        raise TraceError("give --trace FILE or --scenario NAME, not both")
    if flags:
        raise TraceError(f"{', '.join(flags)}: not with --scenario {scenario}, which takes --config, --scale, --ablate, --seed and --json")


def apart(scale: float, ablate: bool) -> None:
    """Raises TraceError for this scenario's options with another."""
    if scale != 1.0 or ablate:
        raise TraceError(f"{'--ablate' if ablate else '--scale'}: only with --scenario {' or '.join(SCENARIOS)}")


def run(ask: Ask) -> None:
    """Simulate and print. Raises TraceError."""
    if not (isfinite(ask.scale) and SCALE_LEAST <= ask.scale <= 1.0):
        raise TraceError(f"--scale {ask.scale:g}: expected {SCALE_LEAST:g} to 1")
    if not ask.config.classes:
        raise TraceError("--config: it has no classes, so there is nothing to schedule by; see examples/trading.yaml")
    began = monotonic()
    with ExitStack() as stack:
        results, figures = played(ask, progress(stack))
    if ask.as_json:
        print(msgspec.json.format(msgspec.json.encode(answer(ask, results, figures)), indent=2).decode())
    else:
        show.report(ask.scenario, ask.scale, results, figures, monotonic() - began)


def played(ask: Ask, watch: runs.Watch | None) -> tuple[list[dict[str, Any]], list[verdict.Figure]]:
    config, scale, seed = ask.config, ask.scale, ask.seed
    if ask.ablate:
        ways = ablations(config, scale)
        return [result for name in ABLATED for result in runs.play(place.RUNS[name], ways, scale, seed, watch)], []
    ways = [runs.before(config, scale), runs.after(config, scale)]
    if ask.scenario == "collapse":
        results = runs.play(collapse.RUN, ways, scale, seed, watch, collapse.CALM)
        return results, collapse.figures(results)
    results = [result for one in place.RUNS.values() for result in runs.play(one, ways, scale, seed, watch)]
    return results, verdict.figures(results, config.classes)


def answer(ask: Ask, results: Sequence[dict[str, Any]], figures: Sequence[verdict.Figure]) -> dict[str, Any]:
    return {
        "scenario": ask.scenario,
        "scale": ask.scale,
        "seed": ask.seed,
        "results": results,
        "figures": [figure.row() for figure in figures],
    }


def progress(stack: ExitStack) -> runs.Watch | None:
    """A bar for each run, on stderr, for a person."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.progress import Progress, TaskID

    shown = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
    tasks: dict[str, TaskID] = {}

    def watch(name: str, ended: int, whole: int) -> None:
        if name not in tasks:
            tasks[name] = shown.add_task(name, total=whole)
        shown.update(tasks[name], completed=ended)

    return watch
