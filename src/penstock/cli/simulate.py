"""`penstock simulate`: the gateway's own scheduler over modelled engines, on a real or made workload."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from penstock.config import Config

EXAMPLES = """Run the live gateway's scheduler over modelled engines, against other routers' rules, on a trace or a built-in workload.

The same arrivals, nodes and seed always print the same bytes.

\b
Three times what the fleet can take, against two other routers:
  penstock simulate --scenario overload --slo-ttft 2 --slo-tpot 0.1 --compare penstock,fifo-rr,sglang-cache-aware
A trace at three times its speed:
  penstock simulate --trace mooncake.jsonl.gz --nodes 8 --profile mooncake-demo --speedup 3 --slo-ttft 2 --slo-tpot 0.1
Half an hour of production clients, as JSON:
  penstock simulate --trace servegen.tar.xz --window 09:00:09:30 --nodes 12 --slo-ttft 5 --json
A mixed fleet:
  penstock simulate --scenario chat --nodes 4 --profile qwen3-32b-h100-tp2 --nodes 2 --profile llama-70b-h100-tp8
One of ten tenants at a hundred times its rate:
  penstock simulate --scenario tenants --hog t0:100
A node that dies; faults.yaml says - {at_s: 60, node: n1, do: kill, for_s: 30}:
  penstock simulate --scenario steady --faults faults.yaml
What routing does where nothing is refused (no objective is given), with another step and memory than the profile's:
  penstock simulate --trace mooncake.jsonl.gz --nodes 8 --chunk 2048 --kv-tokens 5194000 --compare penstock,fifo-rr
Published settings, their baselines and ours, and whether ours is as good (exit code 1 where it is not):
  penstock simulate --scenario mooncake --trace mooncake.jsonl.gz
  penstock simulate --scenario llmd
An exchange's opening bell, before and after, with your own task classes:
  penstock simulate --scenario trading --config examples/trading.yaml
"""


def simulate(
    trace: Annotated[Path | None, typer.Option(help="trace file, plain, gz or xz; or a folder", metavar="FILE")] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="mooncake, azure, servegen, vtc or journal; recognised by default", metavar="NAME")
    ] = None,
    scenario: Annotated[str | None, typer.Option(help="a built-in workload instead of a trace; see --list", metavar="NAME")] = None,
    window: Annotated[
        str | None, typer.Option(help="part of the trace, in seconds or HH:MM[:SS]; a side may be empty", metavar="START:END")
    ] = None,
    speedup: Annotated[float, typer.Option(help="run the workload's clock this many times as fast", metavar="X")] = 1.0,
    limit: Annotated[int | None, typer.Option(help="only the first requests", metavar="N")] = None,
    nodes: Annotated[list[int] | None, typer.Option(help="engines [4]; repeat with --profile for a mixed fleet", metavar="N")] = None,
    profile: Annotated[
        list[str] | None, typer.Option(help="their kind [deepseek-v3-h200-tp8]; repeat with --nodes; see --list", metavar="NAME")
    ] = None,
    chunk: Annotated[int | None, typer.Option(help="prompt tokens a step may hold, instead of the profile's", metavar="N")] = None,
    kv_tokens: Annotated[int | None, typer.Option(help="a node's KV memory in tokens, instead of the profile's", metavar="N")] = None,
    preset: Annotated[str, typer.Option(help="what schedules; see --list", metavar="NAME")] = "penstock",
    compare: Annotated[str | None, typer.Option(help="several presets over the same workload", metavar="A,B,...")] = None,
    slo_ttft: Annotated[
        float | None, typer.Option(help="a good answer's longest time to first token, seconds: deadline and measure alike", metavar="S")
    ] = None,
    slo_ttft_per_1k: Annotated[
        float | None, typer.Option("--slo-ttft-per-1k", help="added to it for each 1,000 prompt tokens", metavar="S")
    ] = None,
    slo_tpot: Annotated[float | None, typer.Option(help="a good answer's longest mean time between tokens, seconds", metavar="S")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="configuration whose classes, pools, ladders, policy, knobs, keys and aliases are simulated", metavar="FILE"),
    ] = None,
    scale: Annotated[float, typer.Option(help="of the scenarios trading and collapse: this share of nodes and load", metavar="X")] = 1.0,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="scenario trading: ramp and overload with one part of the scheduler taken away at a time")
    ] = False,
    faults: Annotated[
        Path | None,
        typer.Option(help="YAML or JSON list of {at_s, node, do: kill|restart|slow|mute|unmute, factor, for_s}", metavar="FILE"),
    ] = None,
    hog: Annotated[
        str | None,
        typer.Option(
            help="run each preset again with this tenant at so many times its rate, from @S seconds on; how the others fare",
            metavar="TENANT:X[@S]",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="seed of everything drawn", metavar="N")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print a list with one object a preset")] = False,
    names: Annotated[bool, typer.Option("--list", help="list presets, profiles and scenarios, and stop")] = False,
) -> None:
    from penstock.sim import command
    from penstock.sim.published import command as published
    from penstock.sim.trading import command as trading

    if names:
        command.show_names()
        raise typer.Exit
    if scenario in trading.SCENARIOS or scenario in published.SCENARIOS:
        others = {
            "--trace": trace, "--format": form, "--window": window, "--limit": limit, "--nodes": nodes, "--profile": profile,
            "--compare": compare, "--slo-ttft": slo_ttft, "--slo-tpot": slo_tpot, "--faults": faults, "--speedup": speedup != 1.0,
            "--chunk": chunk, "--kv-tokens": kv_tokens,
        }  # fmt: skip
        flags = [flag for flag, given in others.items() if given]
        if scenario in published.SCENARIOS:
            more = {"--config": config, "--scale": scale != 1.0, "--ablate": ablate, "--hog": hog, "--slo-ttft-per-1k": slo_ttft_per_1k}
            published.alone(scenario, flags + [flag for flag, given in more.items() if given])
            met = published.run(published.Ask(scenario=scenario, trace=trace, seed=seed, as_json=as_json))
            raise typer.Exit(0 if met else 1)
        trading.alone(scenario, flags)
        given = configured(config or Path(trading.__file__).with_name("trading.yaml"))
        trading.run(trading.Ask(scenario=scenario, config=given, scale=scale, seed=seed, ablate=ablate, as_json=as_json))
        return
    trading.apart(scale, ablate)
    ask = command.Options(
        trace=trace, form=form, scenario=scenario, window=window, speedup=speedup, limit=limit, nodes=nodes or [], profiles=profile or [],
        chunk=chunk, kv_tokens=kv_tokens,
        presets=compare.split(",") if compare is not None else [preset], slo_ttft=slo_ttft, slo_ttft_per_1k=slo_ttft_per_1k,
        slo_tpot=slo_tpot, config=None if config is None else configured(config), faults=faults, hog=hog, seed=seed, as_json=as_json,
    )  # fmt: skip
    command.run(ask)


def configured(file: Path) -> Config:
    """The file's configuration, checked as `penstock check` does."""
    from penstock.gateway import settings

    return settings.load(file)


simulate.__doc__ = EXAMPLES
