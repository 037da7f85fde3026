"""What `penstock simulate` does with its options: check them, read, run, print."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from math import inf, isfinite
from pathlib import Path
from time import monotonic

import msgspec

from penstock.config import Config
from penstock.engine import profiles
from penstock.errors import TraceError
from penstock.facts import Profile
from penstock.sim import fairness, faults, load, report, routing, traces
from penstock.sim import hog as hogs
from penstock.sim.arrival import Arrival, cut
from penstock.sim.presets import PRESETS, preset
from penstock.sim.published import command as published
from penstock.sim.run import Plan, simulate
from penstock.sim.setting import PLAIN, Setting
from penstock.sim.slo import Slo
from penstock.sim.traces.ask import Ask, window
from penstock.sim.trading import command as trading
from penstock.sim.world import names

NODES = 4
PROFILE = "deepseek-v3-h200-tp8"
NODES_MAX = 10_000
SIZE_LEAST, SIZE_MOST = 16, 1_000_000_000
QUIET_S = 2.0
"""A run shorter than this shows no progress bar."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The command line, as typed."""

    trace: Path | None
    form: str | None
    scenario: str | None
    window: str | None
    speedup: float
    limit: int | None
    nodes: list[int]
    profiles: list[str]
    chunk: int | None
    kv_tokens: int | None
    presets: list[str]
    slo_ttft: float | None
    slo_ttft_per_1k: float | None
    slo_tpot: float | None
    config: Config | None
    faults: Path | None
    hog: str | None
    seed: int
    as_json: bool


def run(options: Options) -> None:
    """Simulate and print. Raises TraceError: one line saying what is wrong and what would be right."""
    chosen = [name.strip() for name in options.presets]
    for name in chosen:
        preset(name)
    slo = objective(options)
    machines = [changed(machine, options) for machine in fleet(options.nodes, options.profiles, options.config)]
    broken = faults.read(options.faults, names(len(machines))) if options.faults else []
    arrivals = workload(options)
    setting = PLAIN if options.config is None else Setting(config=options.config, classes=options.config.classes)
    hog = None if options.hog is None else hogs.parse(options.hog, {arrival.tenant for arrival in arrivals})
    plan = Plan(arrivals=arrivals, fleet=machines, presets=chosen, slo=slo, faults=broken, seed=options.seed, setting=setting, hog=hog)
    with ExitStack() as stack:
        results = simulate(plan, progress(stack, len(arrivals)))
    if options.as_json:
        print(msgspec.json.format(msgspec.json.encode(results), indent=2).decode())
    else:
        show(plan, results)


def objective(options: Options) -> Slo:
    for flag, value in (("--slo-ttft", options.slo_ttft), ("--slo-tpot", options.slo_tpot)):
        if value is not None:
            positive(flag, value)
    per_1k = options.slo_ttft_per_1k
    if per_1k is not None and options.slo_ttft is None:
        raise TraceError("--slo-ttft-per-1k is added to --slo-ttft: give that too")
    if per_1k is not None and not 0.0 <= per_1k < inf:
        raise TraceError(f"--slo-ttft-per-1k {per_1k:g}: expected 0 or more")
    return Slo(ttft_s=options.slo_ttft, ttft_per_1k_s=per_1k or 0.0, tpot_s=options.slo_tpot)


def positive(flag: str, value: float) -> None:
    if not (isfinite(value) and value > 0.0):
        raise TraceError(f"{flag} {value:g}: expected a number above 0")


def fleet(counts: list[int], kinds: list[str], config: Config | None = None) -> list[Profile]:
    """Profiles of all nodes: the counts and the kinds pairwise; with neither, of a configuration with pools its nodes."""
    configured = config.nodes if config is not None and config.pools else ()
    if configured and not counts and not kinds:
        return [profiles.load(node.profile or PROFILE) for node in configured]
    counts, kinds = counts or [len(configured) or NODES] * max(1, len(kinds)), kinds or [PROFILE] * max(1, len(counts))
    if len(counts) != len(kinds):
        raise TraceError(
            f"{len(counts)} --nodes for {len(kinds)} --profile: repeat them pairwise, such as --nodes 4 --profile A --nodes 2 --profile B"
        )
    for count in counts:
        if not 1 <= count <= NODES_MAX:
            raise TraceError(f"--nodes {count}: expected 1 to {NODES_MAX:,}")
    if sum(counts) < len(configured):
        raise TraceError(f"--nodes {sum(counts)}: the configuration's pools are made of its {len(configured)} nodes: give no fewer")
    return [one for count, kind in zip(counts, kinds, strict=True) for one in [profiles.load(kind)] * count]


def changed(profile: Profile, options: Options) -> Profile:
    """The profile with the step and the memory that are asked for."""
    for flag, value in (("--chunk", options.chunk), ("--kv-tokens", options.kv_tokens)):
        if value is not None and not SIZE_LEAST <= value <= SIZE_MOST:
            raise TraceError(f"{flag} {value}: expected {SIZE_LEAST} to {SIZE_MOST:,} tokens")
    chunk, kv_tokens = options.chunk or profile.chunk_tokens, options.kv_tokens or profile.kv_tokens
    return msgspec.structs.replace(profile, chunk_tokens=chunk, kv_tokens=kv_tokens)


def workload(options: Options) -> list[Arrival]:
    positive("--speedup", options.speedup)
    if options.limit is not None and options.limit < 1:
        raise TraceError(f"--limit {options.limit}: expected 1 or more")
    start, end = window(options.window) if options.window is not None else (0.0, inf)
    ask = Ask(start_s=start, end_s=end, speedup=options.speedup, limit=options.limit, seed=options.seed)
    if (options.trace is None) == (options.scenario is None):
        known = ", ".join([*load.SCENARIOS, *trading.SCENARIOS, *published.SCENARIOS])
        rest = "not both" if options.trace is not None else f"one of: {known}"
        raise TraceError(f"give --trace FILE or --scenario NAME, {rest}")
    if options.trace is not None:
        return traces.read(options.trace, options.form, ask)
    made = load.generate(load.scenario(options.scenario or "", [*trading.SCENARIOS, *published.SCENARIOS]), options.seed)
    inside = cut(made, start_s=start, end_s=end, speedup=ask.speedup, limit=ask.limit)
    if not inside:
        raise TraceError(f"no request of scenario {options.scenario} is inside --window {options.window}")
    return inside


def progress(stack: ExitStack, requests: int) -> Callable[[str, int], None] | None:
    """A bar on stderr, for a person, once the run proves long."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.progress import Progress, TaskID

    began = monotonic()
    tasks: dict[str, TaskID] = {}
    shown = Progress(console=Console(stderr=True), transient=True)

    def watch(name: str, ended: int) -> None:
        if monotonic() - began < QUIET_S:
            return
        if not tasks:
            stack.enter_context(shown)
        if name not in tasks:
            tasks[name] = shown.add_task(name, total=requests)
        shown.update(tasks[name], completed=ended)

    return watch


def show(plan: Plan, results: list[report.Json]) -> None:
    from rich.console import Console

    kinds: dict[str, int] = {}
    for profile in plan.fleet:
        kinds[profile.name] = kinds.get(profile.name, 0) + 1
    machines = " + ".join(f"{count} x {name}" for name, count in kinds.items())
    span = plan.arrivals[-1].at_s - plan.arrivals[0].at_s
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(f"{len(plan.arrivals):,} requests in {span:,.0f} s on {machines}; good: {plan.slo.text()}")
    console.print(report.table(results) if plan.slo.set or plan.setting.classes else routing.table(results))
    for result in results:
        if result["fairness"] is not None and result["fairness"]["windows"]:
            console.print(fairness.sentence(result["preset"], result["fairness"]))
        if "hog" in result:
            console.print(hogs.sentence(result["preset"], result["hog"]))


def show_names() -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    groups = {
        "presets": {name: one.about for name, one in PRESETS.items()},
        "profiles": {name: profiles.load(name).source for name in profiles.names()},
        "scenarios": {**{name: one.about for name, one in load.SCENARIOS.items()}, **trading.SCENARIOS, **published.SCENARIOS},
    }
    for group, members in groups.items():
        lines = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        lines.add_column(no_wrap=True, min_width=22)
        for name, about in members.items():
            lines.add_row(name, about)
        console.print(f"[bold]{group}[/bold]")
        console.print(lines)
