"""Fit a profile's step time to measured points, and play the measurement back through the engine.

    python -m penstock.engine.fit silicon_sample.csv.gz [--system h200_sxm] [--backend sglang] [--tp 8] [MODEL ...]

A point is one run of InferenceMAX's benchmark client: `concurrency` callers in a closed loop, ten prompts each, lengths
drawn evenly from 80 to 100% of the nominal ones, all callers starting together. It reports mean TTFT and mean TPOT.
"""

from __future__ import annotations

import argparse
import csv
import gzip
from collections.abc import Iterable
from collections.abc import Sequence as Series
from itertools import combinations
from random import Random

import msgspec

from penstock.engine.model import Engine
from penstock.engine.sequence import Ended, Sequence
from penstock.facts import Profile

PROMPTS_PER_CALLER = 10
SHORTEST = 0.8
MODELS = ("deepseek-ai/DeepSeek-V3", "deepseek-ai/DeepSeek-R1")


class Point(msgspec.Struct, frozen=True, order=True):
    """A measured (or simulated) run. Times in seconds."""

    prompt_tokens: int
    output_tokens: int
    concurrency: int
    ttft_s: float
    tpot_s: float


def points(rows: Iterable[dict[str, str]], models: Iterable[str], system: str, backend: str, tp: str) -> list[Point]:
    """The aggregated (not disaggregated) runs, sorted; the same run published twice counts once."""
    found: dict[tuple[int, int, int], Point] = {}
    wanted = frozenset(models)
    for row in rows:
        if row["model_path"] in wanted and (row["system"], row["backend"], row["mode"], row["tp_size"]) == (system, backend, "agg", tp):
            key = int(row["isl"]), int(row["osl"]), int(row["batch_size"])
            found.setdefault(key, Point(*key, float(row["silicon_ttft_ms"]) / 1e3, float(row["silicon_tpot_ms"]) / 1e3))
    return sorted(found.values())


def read(path: str, models: Iterable[str] = MODELS, system: str = "h200_sxm", backend: str = "sglang", tp: str = "8") -> list[Point]:
    """Points of a gzipped CSV with the columns of silicon_sample.csv.gz."""
    with gzip.open(path, "rt") as lines:
        return points(csv.DictReader(lines), models, system, backend, tp)


def fit(measured: Series[Point]) -> tuple[float, float, float, float]:
    """c0..c3 in seconds: the least squares of the relative error of TPOT, none of them negative.

    In a steady closed loop each decoding step carries, on average, the prompts that replace the answers it ends:
    TPOT = c0 + c1*B + c2*B*(prompt + output/2) + c3*B*prompt/output. Needs at least four points that differ.
    """
    best: tuple[float, tuple[float, ...]] = float("inf"), (0.0,) * 4
    for count in range(1, 5):
        for used in combinations(range(4), count):
            terms = [[_terms(point)[index] / point.tpot_s for index in used] for point in measured]
            solved = _least_squares(terms)
            if solved is None or min(solved) < 0.0:
                continue
            error = sum((sum(map(float.__mul__, solved, row)) - 1.0) ** 2 for row in terms)
            if error < best[0]:
                found = dict(zip(used, solved, strict=True))
                best = error, tuple(found.get(index, 0.0) for index in range(4))
    c0, c1, c2, c3 = best[1]
    return c0, c1, c2, c3


def _terms(point: Point) -> tuple[float, float, float, float]:
    batch, prompt, output = float(point.concurrency), point.prompt_tokens, point.output_tokens
    return 1.0, batch, batch * (prompt + output / 2), batch * prompt / output


def _least_squares(rows: list[list[float]]) -> list[float] | None:
    """x that brings every row . x nearest to 1, by the normal equations; None when they are singular."""
    size = len(rows[0])
    matrix = [[sum(row[i] * row[j] for row in rows) for j in range(size)] + [sum(row[i] for row in rows)] for i in range(size)]
    for i in range(size):
        pivot = max(range(i, size), key=lambda r: abs(matrix[r][i]))
        matrix[i], matrix[pivot] = matrix[pivot], matrix[i]
        if abs(matrix[i][i]) <= 1e-12 * max(map(abs, matrix[i])):
            return None
        for r in range(size):
            if r != i:
                factor = matrix[r][i] / matrix[i][i]
                matrix[r] = [a - factor * b for a, b in zip(matrix[r], matrix[i], strict=True)]
    return [matrix[i][size] / matrix[i][i] for i in range(size)]


def play(profile: Profile, point: Point, seed: int = 0) -> Point:
    """The point's run on the engine: what it would report."""
    engine, draw = Engine(profile), Random(seed)
    left = point.concurrency * PROMPTS_PER_CALLER
    asked: dict[int, float] = {}
    first: dict[int, float] = {}
    tpots: list[float] = []

    def ask(now: float) -> None:
        if len(asked) < left:
            prompt = draw.randint(int(point.prompt_tokens * SHORTEST), point.prompt_tokens)
            output = draw.randint(int(point.output_tokens * SHORTEST), point.output_tokens)
            asked[len(asked)] = now
            engine.submit(Sequence(len(asked) - 1, prompt, output), now)

    for _ in range(point.concurrency):
        ask(0.0)
    while engine.running or engine.waiting:
        now = engine.deadline
        for outcome in engine.advance(now):
            if isinstance(outcome, Ended):
                tpots.append((outcome.at - first[outcome.id]) / (outcome.output_tokens - 1))
                ask(now)
            else:
                first[outcome.id] = outcome.at
    ttft_s = sum(first[id] - asked[id] for id in first) / len(first)
    return msgspec.structs.replace(point, ttft_s=ttft_s, tpot_s=sum(tpots) / len(tpots))


def profile(constants: tuple[float, float, float, float], chunk_tokens: int = 8_192) -> Profile:
    """A profile with these constants and as much memory as the runs need."""
    c0, c1, c2, c3 = constants
    return Profile(name="fit", source="fit", c0_s=c0, c1_s=c1, c2_s=c2, c3_s=c3, kv_tokens=10_000_000, chunk_tokens=chunk_tokens)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fit c0..c3 to half of the points, play the other half.")
    parser.add_argument("file")
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--system", default="h200_sxm")
    parser.add_argument("--backend", default="sglang")
    parser.add_argument("--tp", default="8")
    asked = parser.parse_args(arguments)
    measured = read(asked.file, asked.models, asked.system, asked.backend, asked.tp)
    for train, test in ((measured[::2], measured[1::2]), (measured[1::2], measured[::2])):
        print(report(train, test))


def report(train: Series[Point], test: Series[Point]) -> str:
    """Measured beside played, a line a held-out point, then the mean absolute errors."""
    constants = fit(train)
    c0, c1, c2, c3 = constants
    lines = [f"c0 {c0 * 1e3:.3f} ms  c1 {c1 * 1e6:.1f} us  c2 {c2 * 1e9:.2f} ns  c3 {c3 * 1e6:.2f} us"]
    for point in test:
        got = play(profile(constants), point)
        lines.append(
            f"{point.prompt_tokens:6} in {point.output_tokens:6} out x {point.concurrency:3}:"
            f"  TPOT {point.tpot_s * 1e3:6.2f} ms, played {got.tpot_s * 1e3:6.2f} ({got.tpot_s / point.tpot_s - 1:+.1%})"
            f"  TTFT {point.ttft_s * 1e3:6.0f} ms, played {got.ttft_s * 1e3:6.0f} ({got.ttft_s / point.ttft_s - 1:+.1%})"
        )
    tpot, ttft = errors(constants, test)
    return "\n".join([*lines, f"mean absolute error: TPOT {tpot:.1%}, TTFT {ttft:.1%}", ""])


def errors(constants: tuple[float, float, float, float], test: Series[Point]) -> tuple[float, float]:
    """Mean absolute relative error of TPOT and of TTFT."""
    played = [(play(profile(constants), point), point) for point in test]
    tpot = sum(abs(got.tpot_s / point.tpot_s - 1) for got, point in played) / len(played)
    ttft = sum(abs(got.ttft_s / point.ttft_s - 1) for got, point in played) / len(played)
    return tpot, ttft


if __name__ == "__main__":
    main()
