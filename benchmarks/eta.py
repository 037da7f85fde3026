"""How long waiting callers are told to wait, beside how long they waited: streams of a class without a deadline, at 1.3 times capacity.

Before plain servers of which nothing is known, and before the embedded engines of `penstock up`; from one tenant, from three of which
one asks for more than the others together, and in three classes, of which one goes first and one last. Each `: queued ... eta_ms=N` is
compared with the time from when it came to the first token; of interest are waits above a second. Options: `--seconds N`, `--case NAME`,
`--mix NAME`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import monotonic

import msgspec
import uvloop

from benchmarks.caller import Flow, Try, poisson
from benchmarks.plain import ability
from benchmarks.plain_server import kind_of
from benchmarks.process import PENSTOCK, CannotStart, Process, free_ports
from benchmarks.row import Row, main
from benchmarks.unknown import gateway, servers

LOAD = {"one tenant": 1.3, "three tenants": 1.3, "three classes": 1.1}
"""With more, the last of three classes would get nothing at all."""
SECONDS = 60.0
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
CLOSED, CLOSED_S = 600, 20.0


def errors(tries: list[Try], load_end: float) -> list[float]:
    """Distances of the told from the actual wait, as shares of it, of waits above a second.

    What goes before others goes on coming only until `load_end`: what was told since the first whose wait was longer does not count.
    """
    told = [(at, eta_s, one.first) for one in tries if one.due >= WARM_S and one.first < float("inf") for at, eta_s in one.etas]
    last = min((at for at, _, first in told if first > load_end), default=float("inf"))
    return [abs(eta_s - (first - at)) / (first - at) for at, eta_s, first in told if first - at > LONG_S and at < last]


def rows(name: str, tries: list[Try], note: str, load_end: float) -> list[Row]:
    found = errors(tries, load_end)
    if len(found) < 50:
        return [Row(f"eta {name}: median error", None, note=f"only {len(found)} waits above {LONG_S:g} s; {note}")]
    longest = max(one.first - at for one in tries for at, _ in one.etas if one.first < float("inf"))
    return [
        Row(
            f"eta {name}: median error",
            median(found),
            "of the wait",
            at_most=0.2,
            note=f"{len(found)} told, waits up to {longest:.0f} s; {note}",
        ),
        Row(f"eta {name}: share within a half", sum(error <= 0.5 for error in found) / len(found), "of told"),
    ]


Body = Callable[[int, bool], bytes]


async def run(port: int, rate: float, seconds: float, mix: dict[str, float], body: Body | None = None) -> list[Try]:
    started = monotonic()
    flows = [(Flow(f"http://127.0.0.1:{port}", body=body, key=key), share) for key, share in mix.items()]
    calls = [flow.run(poisson(share * rate, seconds, seed, streamed=1.0), started) for seed, (flow, share) in enumerate(flows, 3)]
    return [one for tries in await asyncio.gather(*calls) for one in tries]


def settings(mix: str) -> str:
    """For the gateway; its keys stand in the environment."""
    keys = [key for key in MIXES[mix] if key]
    os.environ.pop("PENSTOCK_KEYS", None)
    if keys:
        os.environ["PENSTOCK_KEYS"] = ",".join(f"{key}:{key}" for key in keys)
    return CLASSES if "classes" in mix else SETTINGS


def plain(folder: Path, kind: str, seconds: float, mix: str) -> list[Try]:
    ports = free_ports(6)
    capacity = 4 * ability(kind_of(kind), 1e9)
    rules = settings(mix)
    with servers(folder, kind, [kind] * 4, ports[:4], seconds), gateway(folder, kind, ports[:4], ports[4], ports[5], rules):
        return uvloop.run(run(ports[4], LOAD[mix] * capacity, seconds, MIXES[mix]))


def end_of(mix: str, seconds: float) -> float:
    """With one queue, who waits does not wait for who comes later."""
    return float("inf") if mix == "one tenant" else seconds


def prompt(model: str) -> bytes:
    text = " ".join(random.choices(WORDS, k=PROMPT_WORDS))
    call = {"model": model, "stream": True, "max_tokens": OUTPUT_TOKENS, "messages": [{"role": "user", "content": text}]}
    return msgspec.json.encode(call)


WORDS = ["".join(random.Random(seed).choices("abcdefghijklmnopqrstuvwxyz", k=5)) for seed in range(2_000)]


async def closed(port: int, model: str, key: str) -> float:
    """Answers a second with `CLOSED` callers that each ask again at once."""
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


async def embedded(port: int, seconds: float, mix: str) -> tuple[float, list[Try]]:
    model = "deepseek-v3"
    rate = await closed(port, model, next(iter(MIXES[mix])))
    return rate, await run(port, LOAD[mix] * rate, seconds, MIXES[mix], lambda number, stream: prompt(model))


def engines(folder: Path, seconds: float, mix: str) -> list[Row]:
    ports = free_ports(6)
    path = folder / "up.yaml"
    path.write_text(f"listen: {{port: {ports[4]}}}\nadmin: {{port: {ports[5]}}}\n{settings(mix)}")
    options = ("--config", str(path), "--engine-port", str(ports[0]), "--engines", "4")
    with Process((*PENSTOCK, "up", *options), folder / "up.log") as up:
        up.listening(ports[4]).listening(ports[3])
        rate, tries = uvloop.run(embedded(ports[4], seconds, mix))
        note = f"capacity {rate:.1f}/s of {PROMPT_WORDS} words in, {OUTPUT_TOKENS} tokens out"
        return rows(f"embedded engines, {mix}", tries, note, end_of(mix, seconds))


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
                        tries = plain(Path(folder), PLAIN[case], asked.seconds, mix)
                        found += rows(f"plain servers, {case}, {mix}", tries, f"{LOAD[mix]:g}x of capacity", end_of(mix, asked.seconds))
        except CannotStart as error:
            found.append(Row("eta", None, note=str(error)[-200:].replace("\n", " ")))
    return found


if __name__ == "__main__":
    main(measure)
