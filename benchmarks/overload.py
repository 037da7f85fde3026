"""Live overload: `penstock up`, its capacity found, then three times that for a minute.

Good answers are counted over all calls by the demo's own class: first token within 2 s and 0.25 s for each 1,000 prompt tokens, at most
0.1 s between tokens on average.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.process import PENSTOCK, SOURCES, CannotStart, Process, free_ports, resident_mb
from benchmarks.row import Row, main

ENGINES = 4
FACTOR = 3.0
SECONDS = 60
STEP_S = 8
WORKLOAD = ("--prompt-tokens", "2000", "--output-tokens", "100")
SLO = ("--slo-ttft", "2", "--slo-ttft-per-1k", "0.25", "--slo-tpot", "0.1")

Json = dict[str, Any]


def bench(port: int, *options: str) -> Json:
    """Raises CannotStart with what bench said when it failed."""
    done = subprocess.run(
        (*PENSTOCK, "bench", "--url", f"http://127.0.0.1:{port}", *WORKLOAD, *SLO, *options, "--json"),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SOURCES)},
    )
    if done.returncode:
        raise CannotStart(done.stderr.strip()[-200:])
    result: Json = json.loads(done.stdout)
    return result


def gateway_of(up: Process) -> int:
    """The process id of the gateway among the supervised ones."""
    for pid in up.family():
        if "gateway" in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
            return pid
    raise CannotStart("no gateway among the supervised processes")


def rows(found: Json, loaded: Json, before_mb: float, after_mb: float) -> list[Row]:
    capacity = found["capacity_per_s"]
    refused, wrong = loaded["refused"], {"500", "501", "502", "504"}
    without = refused - round(refused * (loaded["refusals"]["with_retry_after"] or 0.0))
    waits = loaded["refusals"]["retry_after_s"]
    return [
        Row(
            "overload: capacity found",
            capacity,
            "requests/s",
            note=f"{len(found['steps'])} steps of {STEP_S} s and longer, goodput >= 0.95",
        ),
        Row("overload: good answers at 3x / capacity", loaded["good_per_s"] / capacity, "", at_least=0.85),
        Row("overload: refused", refused / loaded["requests"], "of calls", note=f"Retry-After {waits['min']} to {waits['max']} s"),
        Row("overload: refusals without Retry-After", without, "", at_most=0),
        Row("overload: 5xx other than 503", sum(loaded["statuses"].get(status, 0) for status in wrong), "", at_most=0),
        Row("overload: other errors", sum(loaded["errors"].values()), "", at_most=0),
        Row("overload: TTFT p99 of completed answers", loaded["ttft_s"]["p99"], "s"),
        Row(
            "overload: gateway memory after / before", after_mb / before_mb, "x", at_most=1.1, note=f"{before_mb:.1f} -> {after_mb:.1f} MB"
        ),
        Row("overload: calls sent late, p99", loaded["late_s"]["p99"], "s", at_most=0.05),
    ]


def measure() -> list[Row]:
    port, admin, *engines = free_ports(2 + ENGINES)
    options = ("--port", str(port), "--admin-port", str(admin), "--engine-port", str(engines[0]), "--engines", str(ENGINES))
    with tempfile.TemporaryDirectory(prefix="penstock-overload-") as name:
        try:
            with Process((*PENSTOCK, "up", *options), Path(name) / "up.log") as up:
                up.listening(port).listening(engines[-1])
                found = bench(port, "--find-capacity", "--duration", str(STEP_S))
                if not found["capacity_per_s"]:
                    return [Row("overload: capacity found", 0.0, "requests/s", note=str(found["steps"])[-160:])]
                gateway = gateway_of(up)
                before_mb = resident_mb(gateway)
                # Another seed: prompts that the engines' prefix caches have not seen.
                rate = FACTOR * found["capacity_per_s"]
                loaded = bench(port, "--rate", str(rate), "--duration", str(SECONDS), "--timeout", "60", "--seed", "1")
                return rows(found, loaded, before_mb, resident_mb(gateway))
        except CannotStart as error:
            return [Row("overload", None, note=str(error)[-200:].replace("\n", " "))]


if __name__ == "__main__":
    main(measure)
