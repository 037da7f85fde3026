"""Seconds the simulator takes for a preset: on the conversation trace where it is at hand, else on a built-in workload."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from benchmarks.build import Build, builds
from benchmarks.process import SOURCES
from benchmarks.row import Row, main

PRESETS = ("penstock", "fifo-rr", "sglang-cache-aware")
DATA = Path(os.environ.get("PENSTOCK_DATA", SOURCES.parent.parent / "shared" / "data"))
SLO = ("--slo-ttft", "2", "--slo-tpot", "0.1")


def workload() -> tuple[str, tuple[str, ...]]:
    trace = DATA / "mooncake_conversation.jsonl.gz"
    if trace.exists():
        return "conversation trace at 3x", ("--trace", str(trace), "--nodes", "8", "--profile", "mooncake-demo", "--speedup", "3", *SLO)
    return "scenario overload", ("--scenario", "overload", *SLO)


def measure() -> list[Row]:
    return [row for build in builds() for row in measure_one(build)]


def measure_one(build: Build) -> list[Row]:
    name, options = workload()
    rows = []
    for preset in PRESETS:
        began = time.monotonic()
        done = subprocess.run(
            (*build.command, "simulate", *options, "--preset", preset, "--json"),
            capture_output=True,
            text=True,
            env=os.environ | build.environment(),
        )
        took = time.monotonic() - began
        what = f"{build.name} simulates {name}: {preset}"
        if done.returncode:
            rows.append(Row(what, None, note=done.stderr.strip()[-160:].replace("\n", " ")))
            continue
        result = json.loads(done.stdout)[0]
        rows.append(Row(what, took, "s", at_most=4.0, note=f"{result['requests']} requests, goodput {result['goodput']}"))
    return rows


if __name__ == "__main__":
    main(measure)
