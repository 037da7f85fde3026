"""Overload before plain OpenAI servers of which the gateway knows nothing: no profile, no metrics, no number of slots.

Four fleets of four servers, each behind a gateway of its own, all at the same time: servers with slots and a line inside, servers that
share their speed, servers that batch, and servers that say 429, one of them at a third of the speed. Open-loop Poisson calls, half of
them streamed, with 3 s for the whole answer, from a cold start; at 3 times the capacity the fleet loses a quarter of it on the way and
gets it back. What the servers can do is what one of each kind gives when it is kept at the number of requests that suits it best.

Options: `--quick` (one fleet, a third of the time), `--seconds N`, `--fleet NAME`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import uvloop

from benchmarks.caller import Flow, Try, poisson
from benchmarks.plain import ability
from benchmarks.plain_server import kind_of
from benchmarks.process import PENSTOCK, CannotStart, Process, free_ports
from benchmarks.row import Row, main

FLEETS = {
    "slots": ("fifo",) * 4,
    "sharing": ("sharing",) * 4,
    "batching": ("batching",) * 4,
    "busy": ("busy", "busy", "busy", "busy@0.333"),
}
TOTAL_S = 3.0
OVERLOAD, FITTING = 3.0, 0.9
SECONDS, FITTING_SECONDS = 100.0, 45.0
COLD, LESS, BACK = 0.3, 0.4, 0.7
"""Shares of the time: until when it is cold, when half of the servers lose half of their capacity, when they have it back."""
SERVER = Path(__file__).with_name("plain_server.py")


class Fleet:
    """What one fleet can do, whole and with half of its servers halved."""

    def __init__(self, kinds: Iterable[str]) -> None:
        self.kinds = list(kinds)
        whole = [ability(kind_of(kind), TOTAL_S) for kind in self.kinds]
        halved = [ability(kind_of(kind), TOTAL_S, 0.5) for kind in self.kinds[:2]]
        self.whole, self.less = sum(whole), sum(halved) + sum(whole[2:])


def gateway(folder: Path, name: str, ports: list[int], port: int, admin: int, rules: str) -> Process:
    nodes = "".join(f"  - http://127.0.0.1:{one}\n" for one in ports)
    path = folder / f"{name}.yaml"
    path.write_text(f"listen: {{port: {port}}}\nadmin: {{port: {admin}}}\nnodes:\n{nodes}{rules}")
    return Process((*PENSTOCK, "gateway", "--config", str(path)), folder / f"{name}.log").listening(port)


def servers(folder: Path, name: str, kinds: list[str], ports: list[int], seconds: float) -> Process:
    halved = "+".join(map(str, ports[:2]))
    changes = f"{LESS * seconds}:{halved}:0.5,{BACK * seconds}:{halved}:1"
    command = (sys.executable, str(SERVER), ",".join(map(str, ports)), ",".join(kinds), changes)
    return Process(command, folder / f"{name}-servers.log").listening(ports[-1])


def good_per_s(tries: list[Try], start: float, end: float) -> float:
    return sum(one.good(TOTAL_S) for one in tries if start <= one.due < end) / (end - start)


class Case:
    """A fleet under one load."""

    def __init__(self, name: str, fleet: Fleet, load: float, seconds: float, retries: int = 0) -> None:
        self.name, self.fleet, self.load, self.seconds, self.retries = name, fleet, load, seconds, retries
        self.tries: list[Try] = []

    def start(self, stack: ExitStack, folder: Path) -> None:
        ports = free_ports(6)
        key = f"{self.name}-{self.load:g}-{self.retries}".replace(" ", "-")
        rules = f"classes:\n  - {{name: whole, total_ms: {TOTAL_S * 1e3:.0f}}}\n"
        self.servers = stack.enter_context(servers(folder, key, self.fleet.kinds, ports[:4], self.seconds))
        self.gateway = stack.enter_context(gateway(folder, key, ports[:4], ports[4], ports[5], rules))
        self.port = ports[4]

    async def run(self, seed: int) -> None:
        flow = Flow(f"http://127.0.0.1:{self.port}", retries=self.retries, seed=seed)
        flow.until = self.seconds
        times = poisson(self.load * self.fleet.whole, self.seconds, seed)
        if self.load > 1:
            os.kill(self.servers.pid, signal.SIGUSR1)
        self.tries = await flow.run(times, monotonic())

    def can(self, start: float, end: float) -> float:
        """What the servers can do a second, of what came."""
        step = self.seconds / 100
        moments = [start + (index + 0.5) * step for index in range(max(1, round((end - start) / step)))]
        less = sum(LESS * self.seconds <= at < BACK * self.seconds for at in moments) / len(moments) if self.load > 1 else 0.0
        return min(self.load * self.fleet.whole, self.fleet.less * less + self.fleet.whole * (1 - less))

    def rows(self) -> list[Row]:
        name = f"unknown {self.name}" + (" with retries" if self.retries else "")
        if self.load < 1:
            return self._fitting(name)
        cold, end = COLD * self.seconds, self.seconds
        share = good_per_s(self.tries, cold, end) / self.can(cold, end)
        refused = [one for one in self.tries if not one.whole]
        wrong = sum(one.status not in (200, 503) for one in refused)
        windows = {label: good_per_s(self.tries, a * end, b * end) / self.can(a * end, b * end) for label, a, b in WINDOWS}
        return [
            Row(
                f"{name} at {self.load:g}x: good answers / what servers can do",
                share,
                at_least=0.85,
                note=f"can do {self.fleet.whole:.1f}/s, then {self.fleet.less:.1f}; "
                + ", ".join(f"{k} {v:.2f}" for k, v in windows.items()),
            ),
            Row(f"{name} at {self.load:g}x: the same, while cold", good_per_s(self.tries, 0, cold) / self.can(0, cold)),
            Row(f"{name} at {self.load:g}x: ends that are neither answers nor 503", wrong, "calls", at_most=0),
            Row(f"{name} at {self.load:g}x: whole answers that came late", late(self.tries), "of answers"),
        ]

    def _fitting(self, name: str) -> list[Row]:
        refused = sum(not one.whole for one in self.tries)
        return [
            Row(
                f"{name} at {self.load:g}x: refused or failed",
                refused,
                "calls",
                at_most=0,
                note=f"of {len(self.tries)}, cold start among them",
            ),
            Row(f"{name} at {self.load:g}x: good answers", sum(one.good(TOTAL_S) for one in self.tries) / len(self.tries), "of calls"),
        ]


WINDOWS = (("cold", 0.3, 0.4), ("less", 0.4, 0.45), ("later", 0.45, 0.7), ("back", 0.7, 0.75), ("after", 0.75, 1.0))


def late(tries: list[Try]) -> float:
    whole = [one for one in tries if one.whole]
    return sum(not one.good(TOTAL_S) for one in whole) / max(1, len(whole))


async def together(cases: list[Case]) -> None:
    await asyncio.gather(*(case.run(seed) for seed, case in enumerate(cases, 1)))


def measured(cases: list[Case], folder: Path) -> list[Row]:
    with ExitStack() as stack:
        for case in cases:
            case.start(stack, folder)
        uvloop.run(together(cases))
    return [row for case in cases for row in case.rows()]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="unknown", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="one fleet, a third of the time")
    parser.add_argument("--seconds", type=float, default=0.0, help=f"length of the overload ({SECONDS:.0f})")
    parser.add_argument("--fleet", choices=tuple(FLEETS), action="append", help="only this one")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args([] if Path(sys.argv[0]).stem == "__main__" else None)


def measure() -> list[Row]:
    asked = options()
    names = asked.fleet or (["slots"] if asked.quick else list(FLEETS))
    seconds = asked.seconds or (SECONDS / 3 if asked.quick else SECONDS)
    fleets = {name: Fleet(FLEETS[name]) for name in names}
    overload = [Case(name, fleet, OVERLOAD, seconds) for name, fleet in fleets.items()]
    if not asked.quick and "slots" in fleets:
        overload.append(Case("slots", fleets["slots"], OVERLOAD, seconds, retries=2))
    fitting = [Case(name, fleet, FITTING, min(seconds, FITTING_SECONDS)) for name, fleet in fleets.items()]
    with tempfile.TemporaryDirectory(prefix="penstock-unknown-") as folder:
        try:
            return [*measured(overload, Path(folder)), *measured(fitting, Path(folder))]
        except CannotStart as error:
            return [Row("unknown", None, note=str(error)[-200:].replace("\n", " "))]


if __name__ == "__main__":
    main(measure)
