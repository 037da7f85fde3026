"""A crowd that is refused and comes back when told to: are the returns spread, and does who comes back on time get in?

Plain servers behind a gateway that knows nothing of them, with a deadline for the whole answer and some load of their own. Then 10,000
calls in a second and a half. All but a few hundred follow the official client's rule (its retries, its headers) over raw
connections; the others are calls of the official `openai` client itself, 2 retries each, from a process of its own. Options: `--calls N`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import uvloop

from benchmarks.caller import Flow, Try, poisson
from benchmarks.plain import KINDS, ability
from benchmarks.process import CannotStart, Process, free_ports
from benchmarks.row import Row, main
from benchmarks.unknown import SERVER, gateway

CALLS, OFFICIAL = 10_000, 300
RETRIES = 2
TOTAL_S = 3.0
SERVERS, KIND = 4, "quick"
WARM_S, CROWD_S, REST_S = 15.0, 1.5, 90.0
USUAL = 0.3
"""Load of callers that come for the first time, before the crowd and beside it."""
ON_TIME_S = 1.0
"""A return is on time when it arrives within this of its promise: all are, unless the callers' machine is late."""


async def crowd(port: int, calls: int, capacity: float) -> tuple[list[Try], list[Try]]:
    usual = Flow(f"http://127.0.0.1:{port}", retries=0, seed=2)
    many = Flow(f"http://127.0.0.1:{port}", retries=RETRIES, seed=3)
    started = monotonic()
    burst = [(WARM_S + CROWD_S * index / calls, False) for index in range(calls)]
    first, back = await asyncio.gather(
        usual.run(poisson(USUAL * capacity, WARM_S + REST_S, 4, streamed=0.5), started), many.run(burst, started)
    )
    return first, back


def rows(tries: list[Try], usual: list[Try], official: dict[str, float] | None) -> list[Row]:
    refused = [one for one in tries if one.retry == 0 and one.status == 503]
    returns = [one for one in tries if one.retry > 0]
    bins = Counter(int(one.due) for one in returns)
    span = range(min(bins), max(bins) + 1) if bins else range(0)
    mean = len(returns) / max(1, len(span))
    admitted = sum(one.status == 200 for one in returns)
    waits = sorted(one.after_s for one in refused)
    note = (
        f"{len(refused)} of {sum(one.retry == 0 for one in tries)} refused, Retry-After {waits[0]:.1f} to {waits[-1]:.1f} s"
        if waits
        else ""
    )
    found = [
        Row("returns: refused by the crowd's first try", len(refused), "calls", note=note),
        Row(
            "returns: fullest second / mean second",
            max(bins.values()) / mean if bins else None,
            at_most=3.0,
            note=f"{len(returns)} returns over {len(span)} s",
        ),
        Row(
            "returns: admitted of those that came on time",
            admitted / len(returns) if returns else None,
            at_least=0.9,
            note="raw client by the official rule",
        ),
        Row("returns: in time of those admitted", sum(one.good(TOTAL_S) for one in returns) / max(1, admitted)),
        Row("returns: served in the end", sum(one.whole for one in tries) / max(1, sum(one.retry == 0 for one in tries)), "of calls"),
        Row("returns: Retry-After above 120 s", sum(one.after_s > 120 for one in tries), "", at_most=0),
        Row("returns: usual callers served beside the crowd", sum(one.whole for one in usual) / max(1, len(usual)), "of calls"),
    ]
    if official is None:
        return [*found, Row("returns: official client", None, note="openai is not installed")]
    share = official["admitted"] / official["returned"] if official["returned"] else None
    note = f"{official['calls']:.0f} calls of openai.AsyncOpenAI, {official['served']:.0f} served, {official['returned']:.0f} returns"
    return [*found, Row("returns: admitted of the official client's returns", share, at_least=0.9, note=note)]


def metric(port: int) -> Row:
    """The gateway's own account."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    counts = {
        which: sum(float(line.split()[-1]) for line in lines if line.startswith("penstock_returns_total") and f'admitted="{which}"' in line)
        for which in ("true", "false")
    }
    total = sum(counts.values())
    return Row(
        "returns: admitted, by penstock_returns_total",
        counts["true"] / total if total else None,
        at_least=0.9,
        note=f"{total:.0f} returns on time",
    )


# --- the official client, in a process of its own


async def official_calls(port: int, calls: int, starts_in_s: float) -> dict[str, float]:
    import openai

    seen: list[tuple[str, int]] = []

    async def note(response: Any) -> None:
        seen.append((response.request.headers.get("x-stainless-retry-count", "0"), response.status_code))

    transport = openai.DefaultAsyncHttpxClient(timeout=600, event_hooks={"response": [note]})
    client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=RETRIES, http_client=transport)
    await asyncio.sleep(starts_in_s)

    async def one() -> bool:
        try:
            await client.chat.completions.create(model="plain", messages=[{"role": "user", "content": "Something short."}])
        except openai.APIError:
            return False
        return True

    served = await asyncio.gather(*(one() for _ in range(calls)))
    returned = [status for retry, status in seen if retry != "0"]
    return {"calls": calls, "served": sum(served), "returned": len(returned), "admitted": sum(status == 200 for status in returned)}


def measure() -> list[Row]:
    parser = argparse.ArgumentParser(prog="returns", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--official", nargs=2, type=float, metavar=("PORT", "SECONDS"), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    calls = parser.parse_args([] if Path(sys.argv[0]).stem == "__main__" else None).calls
    capacity = SERVERS * ability(KINDS[KIND], TOTAL_S)
    ports = free_ports(SERVERS + 2)
    with tempfile.TemporaryDirectory(prefix="penstock-returns-") as name:
        folder = Path(name)
        command = (sys.executable, str(SERVER), ",".join(map(str, ports[:SERVERS])), ",".join([KIND] * SERVERS))
        rules = f"classes:\n  - {{name: whole, total_ms: {TOTAL_S * 1e3:.0f}}}\nlimits: {{connections: 20000}}\n"
        try:
            with (
                Process(command, folder / "servers.log").listening(ports[0]),
                gateway(folder, "returns", ports[:SERVERS], ports[-2], ports[-1], rules),
            ):
                caller = official_client(ports[-2])
                usual, tries = uvloop.run(crowd(ports[-2], max(1, calls - OFFICIAL), capacity))
                return [*rows(tries, usual, result_of(caller)), metric(ports[-1])]
        except CannotStart as error:
            return [Row("returns", None, note=str(error)[-200:].replace("\n", " "))]


def official_client(port: int) -> subprocess.Popen[bytes]:
    """300 calls of the official client, a second before the crowd is over."""
    command = (sys.executable, "-m", "benchmarks.returns", "--official", str(port), str(WARM_S + CROWD_S * 0.7))
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=SERVER.parent.parent)


def result_of(caller: subprocess.Popen[bytes]) -> dict[str, float] | None:
    output, _ = caller.communicate(timeout=200)
    if caller.returncode:
        return None
    result: dict[str, float] = json.loads(output)
    return result


if __name__ == "__main__":
    if "--official" in sys.argv:
        port, starts_in_s = (float(word) for word in sys.argv[sys.argv.index("--official") + 1 :][:2])
        sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(official_calls(int(port), OFFICIAL, starts_in_s))))
    else:
        main(measure)
