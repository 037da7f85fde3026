"""How long waiting callers are told to wait, beside how long they waited: streams of a class without a deadline, at 1.3 times capacity.

Before plain servers of which nothing is known, and before the embedded engines of `penstock up`; from one tenant, from three of which
one asks for more than the others together, and in three classes, of which one goes first and one last. Each `: queued ... eta_ms=N` is
compared with the time from when it came to the first token; of interest are waits above a second. All that was told in `SECONDS` counts,
and calls go on coming until who was told it has begun. Options: `--seconds N`, `--case NAME`, `--mix NAME`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from statistics import median
from time import monotonic

import msgspec
import uvloop

from benchmarks.caller import Flow, Try
from benchmarks.plain import ability
from benchmarks.plain_server import kind_of
from benchmarks.process import PENSTOCK, CannotStart, Process, free_ports
from benchmarks.row import Row, main
from benchmarks.unknown import gateway, servers

LOAD = {"one tenant": 1.3, "three tenants": 1.3, "three classes": 1.15}
"""With more, the last of three classes would get nothing at all."""
SECONDS = 60.0
MOST = 2.5
"""Calls go on coming until all that came in the first `SECONDS` have begun, but no longer than so many times that: what goes before
others must go on coming as long as they wait, or what they were told is judged by a world that has changed.
"""
WARM_S = 10.0
"""Seconds of calls before those that are counted."""
LONG_S = 1.0
PLAIN = {"slots": "fifo", "sharing": "sharing"}
SETTINGS = "hold: {quiet_s: 0.2, interval_s: 0.5}\nclasses:\n  - {name: patient, timeout: none}\n"
MIXES: dict[str, dict[str, float]] = {
    "one tenant": {"": 1.0},
    "three tenants": {"large": 0.6, "middle": 0.25, "small": 0.15},
    "three classes": {"urgent": 0.2, "usual": 0.5, "idle": 0.3},
}
"""Keys and their shares of the calls. Of the last, each is a class too."""
CLASSES = """hold: {quiet_s: 0.2, interval_s: 0.5}
classes:
  - {name: urgent, when: {tenant: urgent}, priority: 4, timeout: none}
  - {name: idle, when: {tenant: idle}, priority: 2, timeout: none}
  - {name: patient, timeout: none}
"""
PROMPT_WORDS, OUTPUT_TOKENS = 1_500, 100
CLOSED, CLOSED_S = 600, 60.0


class Told(msgspec.Struct):
    """What one call was told while the load went on, beside how long it really took from then."""

    key: str
    waits: list[tuple[float, float]]
    """Told and actual, in seconds."""

    def errors(self) -> list[float]:
        """Distances of the told from the actual, as shares of it, of waits above a second; with their sign."""
        return [(eta_s - wait_s) / wait_s for eta_s, wait_s in self.waits if wait_s > LONG_S]


def told(key: str, tries: list[Try], seconds: float, load_end: float) -> list[Told]:
    """Of the calls that came in the measured time; to one key no further than to the first that had not begun when the load ended."""
    counted = [one for one in tries if WARM_S <= one.due < seconds]
    last = min((at for one in counted for at, _ in one.etas if one.first > load_end), default=seconds)
    return [Told(key, [(eta_s, one.first - at) for at, eta_s in one.etas if at < min(last, seconds)]) for one in counted if one.first < inf]


def rows(name: str, calls: list[Told], note: str) -> list[Row]:
    each = [errors for one in calls if (errors := one.errors())]
    found = [error for errors in each for error in errors]
    if len(each) < 100:
        return [Row(f"eta {name}: median error", None, note=f"only {len(each)} calls that waited above {LONG_S:g} s; {note}")]
    longest = max(wait_s for one in calls for _, wait_s in one.waits)
    keys = sorted({one.key for one in calls})
    parts = {key: [error for one in calls if one.key == key for error in one.errors()] for key in keys}
    by_key = ", ".join(f"{key} {median(map(abs, part)):.2f} of {len(part)}" for key, part in parts.items() if part) if len(keys) > 1 else ""
    return [
        Row(
            f"eta {name}: median error",
            median(map(abs, found)),
            "of the wait",
            at_most=0.2,
            note=f"{len(found)} told to {len(each)} calls, waits up to {longest:.0f} s; {note}",
        ),
        Row(
            f"eta {name}: median over calls of each one's median error",
            median(median(map(abs, errors)) for errors in each),
            "of the wait",
            note=f"the first told {median(abs(errors[0]) for errors in each):.3f}; too long by {median(found):+.3f}"
            + (by_key and f"; {by_key}"),
        ),
        Row(f"eta {name}: share within a half", sum(abs(error) <= 0.5 for error in found) / len(found), "of told"),
    ]


Body = Callable[[int, bool], bytes]


class Load:
    """Calls of several keys that come until all those of the measured time have begun."""

    def __init__(self, port: int, mix: dict[str, float], seconds: float, body: Body | None = None) -> None:
        self.flows = {key: Flow(f"http://127.0.0.1:{port}", body=body, key=key) for key in mix}
        self.mix, self.seconds = mix, seconds
        self.looked = dict.fromkeys(mix, 0)

    async def run(self, rate: float) -> tuple[list[Told], str]:
        started = monotonic()
        await asyncio.gather(
            *(flow.run(self.times(seed, self.mix[key] * rate), started) for seed, (key, flow) in enumerate(self.flows.items(), 3))
        )
        load_end = max(flow.tries[-1].due for flow in self.flows.values())
        calls = [one for key, flow in self.flows.items() for one in told(key, flow.tries, self.seconds, load_end)]
        return calls, f"calls came for {load_end:.0f} s"

    def times(self, seed: int, rate: float) -> Iterator[tuple[float, bool]]:
        draw, at = random.Random(seed), 0.0
        while (at := at + draw.expovariate(rate)) < self.seconds or (at < MOST * self.seconds and self.some_wait()):
            yield at, True

    def some_wait(self) -> bool:
        for key, flow in self.flows.items():
            tries, looked = flow.tries, self.looked[key]
            while looked < len(tries) and (tries[looked].first < inf or tries[looked].ended < inf):
                looked += 1
            self.looked[key] = looked
            if looked < len(tries) and tries[looked].due < self.seconds:
                return True
        return False


def settings(mix: str) -> str:
    """For the gateway; its keys stand in the environment."""
    keys = [key for key in MIXES[mix] if key]
    os.environ.pop("PENSTOCK_KEYS", None)
    if keys:
        os.environ["PENSTOCK_KEYS"] = ",".join(f"{key}:{key}" for key in keys)
    return CLASSES if "classes" in mix else SETTINGS


def plain(folder: Path, kind: str, seconds: float, mix: str) -> list[Row]:
    ports = free_ports(6)
    capacity = 4 * ability(kind_of(kind), 1e9)
    rules = settings(mix)
    with servers(folder, kind, [kind] * 4, ports[:4], seconds), gateway(folder, kind, ports[:4], ports[4], ports[5], rules):
        calls, note = uvloop.run(load(ports[4], LOAD[mix] * capacity, seconds, mix))
    names = {kind: name for name, kind in PLAIN.items()}
    return rows(f"plain servers, {names[kind]}, {mix}", calls, f"{LOAD[mix]:g}x of capacity; {note}")


async def load(port: int, rate: float, seconds: float, mix: str) -> tuple[list[Told], str]:
    return await Load(port, MIXES[mix], seconds).run(rate)


def prompt(model: str) -> bytes:
    text = " ".join(random.choices(WORDS, k=PROMPT_WORDS))
    call = {"model": model, "stream": True, "max_tokens": OUTPUT_TOKENS, "messages": [{"role": "user", "content": text}]}
    return msgspec.json.encode(call)


WORDS = ["".join(random.Random(seed).choices("abcdefghijklmnopqrstuvwxyz", k=5)) for seed in range(2_000)]


async def closed(port: int, model: str, key: str) -> float:
    """Answers a second with `CLOSED` callers that each ask again at once, once the gateway knows how long they are."""
    flow = Flow(f"http://127.0.0.1:{port}", body=lambda number, stream: prompt(model), key=key)
    ended: list[float] = []
    tell = flow.ended

    def again(call: Try, headers: object) -> None:
        ended.append(flow.now())
        tell(call, {})
        if flow.now() < CLOSED_S:
            flow.send(Try(flow.now(), True))

    flow.ended = again  # type: ignore[method-assign]
    await flow.run([(0.0, True)] * CLOSED, monotonic())
    return sum(CLOSED_S / 2 <= at < CLOSED_S for at in ended) / (CLOSED_S / 2)


async def embedded(port: int, seconds: float, mix: str) -> tuple[float, list[Told], str]:
    model = "deepseek-v3"
    # Of classes the last, so that what comes above the others is not taken to be as much as this.
    keys = list(MIXES[mix])
    rate = await closed(port, model, keys[-1] if "classes" in mix else keys[0])
    return rate, *await Load(port, MIXES[mix], seconds, lambda number, stream: prompt(model)).run(LOAD[mix] * rate)


def engines(folder: Path, seconds: float, mix: str) -> list[Row]:
    ports = free_ports(6)
    path = folder / "up.yaml"
    path.write_text(f"listen: {{port: {ports[4]}}}\nadmin: {{port: {ports[5]}}}\n{settings(mix)}")
    options = ("--config", str(path), "--engine-port", str(ports[0]), "--engines", "4")
    with Process((*PENSTOCK, "up", *options), folder / "up.log") as up:
        up.listening(ports[4]).listening(ports[3])
        rate, calls, note = uvloop.run(embedded(ports[4], seconds, mix))
        note = f"{LOAD[mix]:g}x of {rate:.1f}/s of {PROMPT_WORDS} words in, {OUTPUT_TOKENS} tokens out; {note}"
        return rows(f"embedded engines, {mix}", calls, note)


def measure() -> list[Row]:
    parser = argparse.ArgumentParser(prog="eta", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--case", choices=(*PLAIN, "engines"), action="append", help="only these servers")
    parser.add_argument("--mix", choices=tuple(MIXES), action="append", help="only these callers")
    asked = parser.parse_args([] if Path(sys.argv[0]).stem == "__main__" else None)
    found: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="penstock-eta-") as folder:
        try:
            for mix in asked.mix or MIXES:
                for case in asked.case or (*PLAIN, "engines"):
                    if case == "engines":
                        found += engines(Path(folder), asked.seconds, mix)
                    else:
                        found += plain(Path(folder), PLAIN[case], asked.seconds, mix)
        except CannotStart as error:
            found.append(Row("eta", None, note=str(error)[-200:].replace("\n", " ")))
    return found


if __name__ == "__main__":
    main(measure)
