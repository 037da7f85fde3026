#!/usr/bin/env python3
"""Draws docs/overload.svg: good answers a second against load, with Penstock and with two other routers' rules.

Every point is a run of `penstock simulate` over the built-in workload `steady`; it takes about half a minute.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SPEEDUPS = (0.4, 0.8, 1.2, 1.4, 1.6, 1.8, 2, 2.4, 3, 4, 5, 6)
PRESETS = {"penstock": "Penstock", "fifo-rr": "round robin (nginx)", "sglang-cache-aware": "cache-aware (SGLang router)"}
COLOURS = {"penstock": "#0b6e4f", "fifo-rr": "#c0392b", "sglang-cache-aware": "#b9770e"}
STEADY_S = 300  # how long the workload lasts at its own speed
SLO = ("--slo-ttft", "2", "--slo-ttft-per-1k", "0.25", "--slo-tpot", "0.1")

WIDTH, HEIGHT = 760, 380
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 64, 56

Point = tuple[float, float]


def measure(speedup: float) -> dict[str, dict[str, Any]]:
    """One simulation: preset -> its report."""
    command = [sys.executable, "-m", "penstock", "simulate", "--scenario", "steady", "--speedup", str(speedup)]
    command += [*SLO, "--compare", ",".join(PRESETS), "--json"]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    reports = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout)
    return {report["preset"]: report for report in reports}


def lines() -> dict[str, list[Point]]:
    """Preset -> (offered a second, good a second)."""
    found: dict[str, list[Point]] = {name: [(0.0, 0.0)] for name in PRESETS}
    for speedup in SPEEDUPS:
        for name, report in measure(speedup).items():
            found[name].append((report["requests"] * speedup / STEADY_S, report["good_per_s"]))
    return found


def draw(found: dict[str, list[Point]]) -> str:
    """The SVG."""
    most_x = max(x for points in found.values() for x, _ in points)
    most_y = 5.0 * (int(max(y for points in found.values() for _, y in points) / 5) + 1)

    def place(point: Point) -> Point:
        x, y = point
        return LEFT + x / most_x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y / most_y * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" font-size="13">',
        "<title>Good answers a second against requests a second, with and without Penstock</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="26" font-size="16" font-weight="600" fill="#1c2833">Good answers a second as load grows</text>',
        f'<text x="{LEFT}" y="46" font-size="12" fill="#566573">4 simulated DeepSeek-V3 nodes; good: first token in 2 s + 0.25 s per '
        "1,000 prompt tokens, then 0.1 s each</text>",
    ]
    for step in range(0, int(most_y) + 1, 5):
        x, y = place((0, step))
        parts.append(f'<path d="M{x:.0f} {y:.1f}H{WIDTH - RIGHT}" stroke="#e5e8e8"/>')
        parts.append(f'<text x="{x - 8:.0f}" y="{y + 4:.1f}" text-anchor="end" fill="#566573">{step}</text>')
    for step in range(0, int(most_x) + 1, 10):
        x, y = place((step, 0))
        parts.append(f'<text x="{x:.1f}" y="{y + 18:.0f}" text-anchor="middle" fill="#566573">{step}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 16}" text-anchor="middle" fill="#566573">requests arriving a second</text>')
    parts += [line(name, [place(point) for point in points]) for name, points in reversed(found.items())]
    parts += [legend(name, index) for index, name in enumerate(PRESETS)]
    return "\n".join([*parts, "</svg>", ""])


def line(name: str, points: list[Point]) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    width = 3.5 if name == "penstock" else 2.5
    return f'<polyline points="{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="{width}" stroke-linejoin="round"/>'


def legend(name: str, index: int) -> str:
    x, y = WIDTH - RIGHT - 235, HEIGHT - BOTTOM - 130 + 22 * index
    dash = f'<path d="M{x} {y - 4}h22" stroke="{COLOURS[name]}" stroke-width="3.5"/>'
    return f'{dash}<text x="{x + 30}" y="{y}" fill="#1c2833">{PRESETS[name]}</text>'


if __name__ == "__main__":
    (ROOT / "docs" / "overload.svg").write_text(draw(lines()))
