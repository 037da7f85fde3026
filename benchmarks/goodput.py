"""Good answers a second from half the load to six times it, against what the fleet can do: does admission ever collapse?

At each load the goal is 0.97 of the smaller of two: as many of the requests as an idle fleet would serve in time (which make the
objective on a node with nothing else to do), and the most good answers a second that this fleet gave at any load. Fleets are sized here:
a first run far above capacity measures it, in service (input + 2 x output tokens a second), as what is served then need not be of the
workload's mix; and as many nodes are taken as make the workload at its own speed `LOAD` of it. Fairness is shown
as the worst quarter of prompt lengths over the mean, and as the least served tenant's share of what was due to it (`sim.shares`).

A trace is sped up. ServeGen's is the same hour at every load, so that six times the load lasts ten minutes, in which its answers of
some minutes are not long in balance; `servegen-steady` is as long at every load. A scenario's rates are multiplied instead: it is
as long at every load, with its peak (`burst`) and its steps (`shared-prefix`) where they are. Those two ask for more than the fleet
has for a part of the time even at 1x, which an idle fleet would serve, so that they cannot reach the goal there.

    PYTHONPATH=. python benchmarks/goodput.py [--limit N] [--seed N] [--json] [WORKLOAD ...]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from math import ceil, inf
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from benchmarks.process import PENSTOCK, SOURCES
from benchmarks.row import Row, main
from penstock.core.fairness import OUTPUT_WEIGHT
from penstock.engine import profiles
from penstock.engine.model import Engine
from penstock.engine.sequence import Ended, Sequence, Started
from penstock.facts import BLOCK_TOKENS, Profile
from penstock.sim import load, traces
from penstock.sim.arrival import Arrival, cut
from penstock.sim.report import best_s
from penstock.sim.slo import Slo
from penstock.sim.traces.ask import Ask
from penstock.sim.world import Trip

DATA = Path(os.environ.get("PENSTOCK_DATA", SOURCES.parent.parent / "shared" / "data"))
LOADS = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0)
LOAD = 0.8
FIRST_LOAD = 4.0
"""Speed-up of the run that measures capacity."""
GOAL = 0.97
FULL = 0.2
"""A fleet that has to refuse more than this share has as much to do as it can."""
SLO = Slo(ttft_s=2.0, ttft_per_1k_s=0.25, tpot_s=0.1)
AT_ONCE = 2
QUICK = 4_000

Json = dict[str, Any]


class Work(NamedTuple):
    """A workload and the kind of node that serves it."""

    name: str
    profile: str
    trace: str = ""
    from_s: float = 0.0
    for_s: float = 0.0
    """Of the trace; 0: all of it."""
    as_long: bool = False
    """Every load is run for as long, on so much more of the trace: an idle fleet fills in the same share of the time."""
    scenario: str = ""
    """Made anew for each load, with so many times its rates."""
    nodes: int = 0
    """0: sized here."""
    pace: float = 1.0
    """Speed-up that is called 1x, so that a light workload asks for several nodes."""
    slo: Slo = SLO


WORKS = (
    Work("conversation", "mooncake-demo", trace="mooncake_conversation.jsonl.gz", nodes=8),
    Work("servegen", "deepseek-v3-h200-tp8", trace="servegen_deepseek_r1.tar.xz", from_s=36_000.0, for_s=3_600.0),
    Work("servegen-steady", "deepseek-v3-h200-tp8", trace="servegen_deepseek_r1.tar.xz", from_s=36_000.0, for_s=1_200.0, as_long=True),
    Work("azure", "llama-70b-a800-tp8", trace="azure2023_conv.csv.gz", pace=3.0),
    Work("steady", "deepseek-v3-h200-tp8", scenario="steady"),
    Work("chat", "qwen3-32b-h100-tp2", scenario="chat"),
    Work("burst", "deepseek-v3-h200-tp8", scenario="burst"),
    Work("shared-prefix", "deepseek-v3-h200-tp8", scenario="shared-prefix"),
)


class Options(NamedTuple):
    limit: int | None
    seed: int


def present(work: Work) -> bool:
    return not work.trace or (DATA / work.trace).exists()


def part(work: Work, speedup: float) -> tuple[float, float]:
    return work.from_s, work.from_s + work.for_s * (speedup if work.as_long else 1.0) if work.for_s else inf


def sped(work: Work, speedup: float) -> float:
    """How much faster than written the requests are sent: a scenario's are made at the rate they are sent."""
    return 1.0 if work.scenario else work.pace * speedup


def command(work: Work, options: Options, trace: Path, nodes: int, speedup: float) -> tuple[str, ...]:
    start_s, end_s = part(work, speedup)
    window = ("--window", f"{start_s:g}:{end_s:g}") if work.for_s else ()
    most = ("--limit", str(options.limit)) if options.limit is not None else ()
    objective = ("--slo-ttft", str(work.slo.ttft_s), "--slo-ttft-per-1k", str(work.slo.ttft_per_1k_s))
    pace = ("--slo-tpot", str(work.slo.tpot_s)) if work.slo.tpot_s is not None else ()
    fleet = ("--nodes", str(nodes), "--profile", work.profile, "--speedup", str(sped(work, speedup)), "--seed", str(options.seed))
    return ("nice", "-n", "10", *PENSTOCK, "simulate", "--trace", str(trace), *window, *most, *objective, *pace, *fleet, "--json")


def simulated(work: Work, options: Options, nodes: int, speedup: float) -> Json:
    """Raises RuntimeError with what the simulator said."""
    with tempfile.TemporaryDirectory(prefix="penstock-goodput-") as folder:
        trace = DATA / work.trace if work.trace else written(arrivals(work, options, speedup), Path(folder) / "made.jsonl")
        done = subprocess.run(
            command(work, options, trace, nodes, speedup), capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(SOURCES)}
        )
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-160:].replace("\n", " "))
    result: Json = json.loads(done.stdout)[0]
    return result


def arrivals(work: Work, options: Options, speedup: float) -> list[Arrival]:
    """The requests of that load, before they are sped up."""
    start_s, end_s = part(work, speedup)
    if work.trace:
        return traces.read(DATA / work.trace, None, Ask(start_s=start_s, end_s=end_s, limit=options.limit, seed=options.seed))
    plain = load.scenario(work.scenario)
    clients = {name: msgspec.structs.replace(client, rate=client.rate * work.pace * speedup) for name, client in plain.clients.items()}
    made = load.generate(msgspec.structs.replace(plain, clients=clients), options.seed)
    return cut(made, start_s=0.0, end_s=inf, speedup=1.0, limit=options.limit)


def written(requests: list[Arrival], path: Path) -> Path:
    """The requests as a trace in Mooncake's format, whose ids are of the prompt's begun blocks, too."""
    rows = [
        {
            "timestamp": one.at_s * 1e3,
            "input_length": one.prompt_tokens,
            "output_length": one.output_tokens,
            "hash_ids": [*one.blocks, number] if one.prompt_tokens % BLOCK_TOKENS else one.blocks,
        }
        for number, one in enumerate(requests)
    ]
    path.write_bytes(b"\n".join(map(msgspec.json.encode, rows)))
    return path


def alone(requests: list[Arrival], profile: Profile) -> int:
    """How many requests make the objective on a node that has nothing else to do; its cache knows the ones before."""
    engine, now, good = Engine(profile), 0.0, 0
    for id, one in enumerate(requests):
        began = first = now
        engine.submit(Sequence(id, one.prompt_tokens, one.output_tokens, one.blocks), now)
        for outcome in engine.advance(now) or _all(engine):
            if isinstance(outcome, Started):
                first = outcome.at
            elif isinstance(outcome, Ended):
                now = outcome.at
                tpot_s = (now - first) / (one.output_tokens - 1) if one.output_tokens > 1 else None
                good += not outcome.refused and SLO.met(one.prompt_tokens, first - began, tpot_s)
    return good


def span(requests: list[Arrival]) -> float:
    return requests[-1].at_s - requests[0].at_s


def _all(engine: Engine) -> list[Started | Ended]:
    outcomes: list[Started | Ended] = []
    while not outcomes or not isinstance(outcomes[-1], Ended):
        outcomes += engine.advance(engine.deadline)
    return outcomes


def nodes_for(work: Work, options: Options, requests: list[Arrival], profile: Profile) -> int:
    """As many nodes as make the workload at its own speed `LOAD` of what they can do."""
    if work.nodes:
        return work.nodes
    pace = sped(work, 1.0)
    offered = sum(one.prompt_tokens + OUTPUT_WEIGHT * one.output_tokens for one in requests) * pace / span(requests)
    first = ceil(best_s(profile, [Trip(one, cached_tokens=0) for one in requests]) * pace / span(requests))
    most: float = simulated(work, options, first, FIRST_LOAD)["good_work_per_s"]
    return max(1, round(first * offered / (LOAD * most)))


def rows(work: Work, nodes: int, idle: dict[float, int], results: dict[float, Json]) -> list[Row]:
    most = max(result["good_per_s"] for result in results.values())
    found = []
    for speedup, result in results.items():
        # Each in its own terms: what an idle fleet serves has no pace, and a short run no beginning and end like it.
        good = result["goodput"] * result["requests"] / idle[speedup]
        quarters = " ".join(f"{part['goodput']:.2f}" for part in result["by_prompt_length"])
        note = (
            f"{result['good_per_s']:.2f}/s, {good:.3f} of an idle fleet's, quarters {quarters}, "
            f"refused {result['refused']}, TTFT p99 {result['ttft_s']['p99']:.1f} s, TPOT p99 {result['tpot_s']['p99'] or 0:.3f} s"
        )
        share = max(good, result["good_per_s"] / most)
        found.append(Row(f"goodput: {work.name} on {nodes} nodes, {speedup:g}x", share, "", None, GOAL, note))
    found += work_rows(work, results)
    worst = {speed: min(part["goodput"] for part in result["by_prompt_length"]) / result["goodput"] for speed, result in results.items()}
    lowest = min(worst, key=worst.__getitem__)
    found.append(Row(f"goodput: {work.name}, worst quarter / all", worst[lowest], "", None, 0.8, f"at {lowest:g}x"))
    for groups, one in (("tenants", "tenant"), ("classes", "class")):
        found += due_rows(
            f"goodput: {work.name}, least served {one} / due", {speed: result["least_served"][groups] for speed, result in results.items()}
        )
    return found


def work_rows(work: Work, results: dict[float, Json]) -> list[Row]:
    """Whether as much is done at every load that the fleet cannot serve: with more to choose from, more answers may be short."""
    full = {speed: result["good_work_per_s"] for speed, result in results.items() if result["refused"] > FULL * result["requests"]}
    if len(full) < 2:
        return []
    lowest = min(full, key=full.__getitem__)
    done = " ".join(f"{speed:g}x {tokens:,.0f}" for speed, tokens in full.items())
    return [Row(f"goodput: {work.name}, least service / most", full[lowest] / max(full.values()), "", None, GOAL, f"tokens/s at {done}")]


def due_rows(name: str, least: dict[float, Json | None]) -> list[Row]:
    """Where there are several of them."""
    known = {speed: one for speed, one in least.items() if one is not None}
    if not known:
        return []
    lowest = min(known, key=lambda speed: known[speed]["share"])
    worst = known[lowest]
    return [Row(name, worst["share"], "", None, 0.8, f"{worst['least']} at {lowest:g}x, {worst['requests']} requests")]


def measured(work: Work, options: Options) -> list[Row]:
    if not present(work):
        return [Row(f"goodput: {work.name}", None, note=f"no {work.trace} in {DATA}")]
    try:
        profile = profiles.load(work.profile)
        nodes = nodes_for(work, options, arrivals(work, options, 1.0), profile)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            runs = {speedup: pool.submit(simulated, work, options, nodes, speedup) for speedup in LOADS}
            one = alone(arrivals(work, options, 1.0), profile) if work.trace and not work.as_long else None
            idle = {speedup: one or alone(arrivals(work, options, speedup), profile) for speedup in LOADS}
            results = {speedup: run.result() for speedup, run in runs.items()}
    except RuntimeError as error:
        return [Row(f"goodput: {work.name}", None, note=str(error))]
    return rows(work, nodes, idle, results)


def options_of(argv: list[str], script: str, about: str, known: list[str]) -> tuple[list[str], Options]:
    """What the command line asks for. Under `make bench` it is meant for others, and only a part of each workload is run."""
    if not argv[0].endswith(script):
        return known, Options(QUICK, 0)
    parser = argparse.ArgumentParser(description=about.split("\n\n")[0])
    parser.add_argument("workload", nargs="*", help=", ".join(known))
    parser.add_argument("--limit", type=int, help="only the first requests of each")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything drawn")
    parser.add_argument("--json", action="store_true", help="rows as objects")
    given = parser.parse_args(argv[1:])
    if unknown := set(given.workload) - set(known):
        parser.error(f"unknown workload {unknown.pop()}")
    return given.workload or known, Options(given.limit, given.seed)


def measure() -> list[Row]:
    names, options = options_of(sys.argv, "goodput.py", __doc__ or "", [work.name for work in WORKS])
    return [row for work in WORKS if work.name in names for row in measured(work, options)]


if __name__ == "__main__":
    main(measure)
