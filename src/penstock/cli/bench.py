"""`penstock bench`: load a server and say how it did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from penstock.load.plan import Planned


def bench(
    url: Annotated[str, typer.Option(help="the server's root, or its /v1", metavar="URL")],
    model: Annotated[str | None, typer.Option(help="model to ask for; by default the first that the server lists")] = None,
    key: Annotated[str | None, typer.Option(help="bearer key", envvar="PENSTOCK_KEY")] = None,
    trace: Annotated[Path | None, typer.Option(help="replay this trace at its own times", metavar="FILE")] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="mooncake, azure, servegen or journal; recognised by default", metavar="NAME")
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="part of the trace, in seconds or HH:MM[:SS]; a side may be empty", metavar="START:END")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="only the trace's first requests", metavar="N")] = None,
    speedup: Annotated[float, typer.Option(min=1e-6, help="run a trace's clock this many times as fast")] = 1.0,
    rate: Annotated[float | None, typer.Option(min=1e-3, max=1e5, help="open loop: Poisson arrivals, requests a second")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, max=10_000, help="closed loop: callers that each wait for their answer")] = None,
    find_capacity: Annotated[bool, typer.Option("--find-capacity", help="search the highest rate that keeps a goodput of 0.95")] = False,
    duration: Annotated[
        float | None, typer.Option(min=0.1, help="seconds of load; without it 30, a trace's length, or 8 a step", metavar="S")
    ] = None,
    slo_ttft: Annotated[float, typer.Option(min=0.0, help="a good answer's longest time to first token, seconds")] = 2.0,
    slo_ttft_per_1k: Annotated[float, typer.Option("--slo-ttft-per-1k", min=0.0, help="added to it for each 1,000 prompt tokens")] = 0.0,
    slo_tpot: Annotated[float, typer.Option(min=0.0, help="a good answer's longest mean time between tokens, seconds")] = 0.1,
    prompt_tokens: Annotated[int, typer.Option(min=1, max=1_000_000, help="prompt size, without a trace")] = 200,
    output_tokens: Annotated[int, typer.Option(min=1, max=1_000_000, help="answer size, without a trace")] = 64,
    timeout: Annotated[float, typer.Option(min=0.1, help="seconds after which a call counts as timed out")] = 600.0,
    stream: Annotated[bool, typer.Option(help="ask for streamed answers")] = True,
    seed: Annotated[
        int,
        typer.Option(help="seed of arrivals and prompts; a server may still hold an earlier run's prompts of the same seed in its cache"),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print the results as JSON")] = False,
) -> None:
    """Load an OpenAI-compatible server with exact timestamps: latency counts from each call's intended start."""
    from penstock.errors import PenstockError
    from penstock.load.bench import Plan
    from penstock.load.plan import Shape
    from penstock.load.show import run
    from penstock.load.slo import Slo
    from penstock.load.target import Target

    if sum((trace is not None, rate is not None, concurrency is not None, find_capacity)) != 1:
        raise PenstockError("bench: give exactly one of --trace, --rate, --concurrency, --find-capacity")
    target = Target(url, key)
    plan = Plan(
        slo=Slo(ttft_s=slo_ttft, ttft_per_1k_s=slo_ttft_per_1k, tpot_s=slo_tpot),
        shape=Shape(prompt_tokens, output_tokens),
        rows=None if trace is None else planned(trace, form, window, limit, seed),
        model=model,
        speedup=speedup,
        rate=rate,
        callers=concurrency,
        find=find_capacity,
        duration_s=duration,
        timeout_s=timeout,
        stream=stream,
        seed=seed,
    )
    raise typer.Exit(run(target, plan, as_json=as_json))


def planned(trace: Path, form: str | None, window: str | None, limit: int | None, seed: int) -> list[Planned]:
    """The asked part of a trace. Readers and load meet here, since neither knows the other. Raises TraceError."""
    from math import inf

    from penstock.load.plan import Planned, Shape
    from penstock.sim.traces import read
    from penstock.sim.traces.ask import Ask
    from penstock.sim.traces.ask import window as read_window

    start_s, end_s = read_window(window) if window is not None else (0.0, inf)
    rows = read(trace, form, Ask(start_s=start_s, end_s=end_s, limit=limit, seed=seed))
    return [Planned(row.at_s, Shape(row.prompt_tokens, max(1, row.output_tokens), row.blocks)) for row in rows]
