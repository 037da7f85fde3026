"""A tally as JSON keys and as lines for a terminal. The keys that `simulate` prints too mean the same here."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import pairwise
from math import ceil
from typing import Any

import msgspec

from penstock.load.slo import Slo
from penstock.load.tally import ERRORS, Kind, Tally

Json = dict[str, Any]


def summary(tally: Tally, started: float, span_s: float) -> Json:
    """The results of calls that were due in the `span_s` seconds after `started`. None stands where nothing was to measure.

    ttft_s and tpot_s are over completed answers, itl_s over all tokens that came; goodput is the share of all calls.
    good_per_s is over the span, or to the last good answer's first token where that is later; output_tokens_per_s is over
    the time to the last end.
    """
    good_s = max(span_s, tally.good_until - started)
    return {
        "requests": tally.ended,
        "completed": tally.kinds[Kind.COMPLETED],
        "refused": tally.kinds[Kind.REFUSED],
        "goodput": ratio(tally.good, tally.ended),
        "good_per_s": ratio(tally.good, good_s),
        "ttft_s": spread(tally.ttft_s, (50, 90, 99)),
        "tpot_s": spread(tally.tpot_s, (50, 99)),
        "itl_s": {f"p{percent}": rounded(tally.gaps.quantile(percent / 100)) if tally.gaps.count else None for percent in (50, 99)},
        "output_tokens_per_s": ratio(tally.output_tokens, max(span_s, tally.ended_at - started)),
        "by_prompt_length": by_prompt_length(tally),
        "errors": {kind.value: tally.kinds[kind] for kind in ERRORS},
        "statuses": {str(status): count for status, count in sorted(tally.statuses.items())},
        "refusals": _refusals(tally),
        "messages": tally.messages,
        "late_s": spread(tally.late_s, (50, 99)),
        "span_s": rounded(span_s),
        "slo": msgspec.structs.asdict(tally.slo),
    }


def by_prompt_length(tally: Tally) -> list[Json]:
    """Goodput of each quarter of all calls, from the shortest prompts to the longest."""
    calls = sorted(zip(tally.prompt_tokens, tally.kept, strict=True), key=lambda call: call[0])
    cuts = [len(calls) * quarter // 4 for quarter in range(5)]
    parts = (calls[start:end] for start, end in pairwise(cuts) if end > start)
    return [
        {
            "prompt_tokens": [part[0][0], part[-1][0]],
            "requests": len(part),
            "goodput": ratio(sum(kept for _, kept in part), len(part)),
        }
        for part in parts
    ]


def spread(values: array[float], percents: Iterable[int]) -> Json:
    """Mean and percentiles (nearest rank)."""
    ordered = sorted(values)
    result: Json = {"mean": ratio(sum(ordered), len(ordered))}
    for percent in percents:
        result[f"p{percent}"] = rounded(ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]) if ordered else None
    return result


def ratio(part: float, whole: float) -> float | None:
    return rounded(part / whole) if whole > 0 else None


def rounded(value: float) -> float:
    return round(value, 6)


def _refusals(tally: Tally) -> Json:
    waits = spread(tally.retry_after_s, (0, 50, 100))
    return {
        "with_retry_after": ratio(len(tally.retry_after_s), tally.kinds[Kind.REFUSED]),
        "inside_streams": tally.refusals_streamed,
        "retry_after_s": {"min": waits["p0"], "p50": waits["p50"], "max": waits["p100"]},
    }


def lines(result: Json, slo: Slo) -> list[str]:
    """What a person reads after a run, a figure a line."""
    rows = {
        "requests": f"{result['requests']} in {result['span_s']:.1f} s: {result['completed']} completed, {result['refused']} refused",
        "goodput": f"{result['goodput'] or 0.0:.1%}, {result['good_per_s'] or 0.0:.2f} good answers/s",
        "  good is": slo.text(),
        "first token": _times(result["ttft_s"]),
        "mean gap of an answer": _times(result["tpot_s"]),
        "single gaps": _times(result["itl_s"]),
        "output tokens/s": f"{result['output_tokens_per_s'] or 0.0:.1f}",
        "errors": ", ".join(f"{kind} {count}" for kind, count in result["errors"].items() if count) or "none",
        "statuses": ", ".join(f"{status}: {count}" for status, count in result["statuses"].items()) or "none",
        "sent late by": _times(result["late_s"]),
    }
    parts = result["by_prompt_length"]
    if len({tuple(part["prompt_tokens"]) for part in parts}) > 1:
        rows["goodput by prompt"] = "  ".join(f"{part['prompt_tokens'][0]}+: {part['goodput']:.1%}" for part in parts)
    if result["refused"]:
        rows["Retry-After"] = _retry_after(result["refusals"])
    return [f"{name:<24}{text}" for name, text in rows.items()]


def _retry_after(refusals: Json) -> str:
    waits = refusals["retry_after_s"]
    if waits["p50"] is None:
        return "on no refusal"
    return f"on {refusals['with_retry_after']:.1%} of refusals: {_times(waits)}"


def _times(values: Json) -> str:
    return "  ".join(f"{name} {_seconds(value)}" for name, value in values.items())


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1_000:.3g} ms" if value < 1 else f"{value:.3g} s"
