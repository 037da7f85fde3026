"""`penstock bench`: load a server and say how it did."""

from __future__ import annotations

from typing import Annotated

import typer


def bench(
    url: Annotated[str, typer.Option(help="the server's root, or its /v1", metavar="URL")],
    model: Annotated[str | None, typer.Option(help="model to ask for; by default the first that the server lists")] = None,
    key: Annotated[str | None, typer.Option(help="bearer key", envvar="PENSTOCK_KEY")] = None,
    trace: Annotated[str | None, typer.Option(help="replay this trace at its own times", metavar="FILE")] = None,
    speedup: Annotated[float, typer.Option(min=1e-6, help="run a trace's clock this many times as fast")] = 1.0,
    rate: Annotated[float | None, typer.Option(min=1e-3, max=1e5, help="open loop: Poisson arrivals, requests a second")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, max=10_000, help="closed loop: callers that each wait for their answer")] = None,
    find_capacity: Annotated[bool, typer.Option("--find-capacity", help="search the highest rate whose goodput is at least 0.95")] = False,
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
    seed: Annotated[int, typer.Option(help="seed of arrivals and prompts")] = 0,
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
    if trace is not None:
        raise PenstockError("bench: --trace is not available yet")
    plan = Plan(
        slo=Slo(ttft=slo_ttft, ttft_per_1k=slo_ttft_per_1k, tpot=slo_tpot),
        shape=Shape(prompt_tokens, output_tokens),
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
    raise typer.Exit(run(Target(url, key), plan, as_json=as_json))
