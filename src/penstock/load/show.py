"""Runs a load with a progress bar on a terminal's stderr, prints its results and chooses the exit code."""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
from time import monotonic

import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from penstock.load.bench import LATE_S, Plan, Watch, bench
from penstock.load.report import Json, lines
from penstock.load.slo import Slo
from penstock.load.tally import Kind
from penstock.load.target import Target, Unreachable

_REFRESH_S = 0.2


def run(target: Target, plan: Plan, *, as_json: bool) -> int:
    """The exit code: 0 when the load ran, 1 when nothing could be reached."""
    _allow_connections()
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        result = uvloop.run(_watched(target, plan, errors))
    except Unreachable as error:
        print(f"penstock: {error}", file=sys.stderr)
        return 1
    _print(result, plan.slo, as_json=as_json)
    for line in _warnings(result):
        print(f"penstock: {line}", file=sys.stderr)
    return 1 if _nothing_answered(result) else 0


def _allow_connections() -> None:
    """As many open files as this user may have: under overload an open loop holds thousands of connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _watched(target: Target, plan: Plan, console: Console) -> Json:
    # What exists now lives as long as the run: leaving it out of collections keeps their pauses out of the timestamps.
    gc.freeze()
    watch = Watch()
    if not console.is_terminal:
        return await bench(target, plan, watch)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[seen]}"))
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        painter = asyncio.create_task(_paint(progress, watch))
        try:
            return await bench(target, plan, watch)
        finally:
            painter.cancel()


async def _paint(progress: Progress, watch: Watch) -> None:
    bar, shown, since = progress.add_task("connecting", total=None, seen=""), watch.run, monotonic()
    while True:
        run = watch.run
        if run is not None:
            if run is not shown:
                shown, since = run, monotonic()
            progress.update(
                bar,
                description=watch.label if run.sending else f"{watch.label}: waiting for answers",
                total=watch.span_s,
                completed=min(watch.span_s, monotonic() - since),
                seen=f"sent {run.sent}  ended {run.tally.ended}  good {run.tally.good}  refused {run.tally.kinds[Kind.REFUSED]}",
            )
            progress.refresh()
        await asyncio.sleep(_REFRESH_S)


def _print(result: Json, slo: Slo, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
        return
    if result["mode"] != "find-capacity":
        print("\n".join(lines(result, slo)))
        return
    for step in result["steps"]:
        span, goodput = f"{step['rate']:>9.2f}/s for {step['span_s']:>4.1f} s", f"goodput {step['goodput'] or 0.0:>6.1%}"
        print(f"{span}  {goodput}  refused {step['refused']:>6}  {'passed' if step['passed'] else 'failed'}")
    print(f"capacity {result['capacity_per_s']:.2f} requests/s: the highest rate that kept a goodput of {result['goodput_goal']}")
    print(f"good is {slo.text()}")


def _warnings(result: Json) -> list[str]:
    """What makes the results mean less than they seem to."""
    lines = [f"{kind}: {message}" for kind, message in result.get("messages", {}).items()]
    late_s = [step["late_s"]["p99"] or 0.0 for step in result.get("steps", [result])]
    if max(late_s, default=0.0) > LATE_S:
        lines.append(f"the generator sent late (p99 {max(late_s):.3f} s): the figures hold its own delays too")
    if result["interrupted"]:
        lines.append("interrupted: the results are of what had ended by then")
    return lines


def _nothing_answered(result: Json) -> bool:
    """Every call ended without so much as a status."""
    steps = result.get("steps", [result])
    return any(step["requests"] for step in steps) and not any(step["statuses"] for step in steps)
