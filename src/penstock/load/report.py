"""A tally as JSON keys and as lines for a terminal. The keys that `simulate` prints too mean the same here."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from penstock.load.tally import ERRORS, Kind, Tally, quantile

if TYPE_CHECKING:
    from rich.table import Table

Json = dict[str, Any]


def summary(tally: Tally, span_s: float) -> Json:
    """The results as JSON; rates are over `span_s`, the seconds in which calls were due. Times in seconds.

    ttft_s and tpot_s are over completed answers, itl_s over all tokens that came; goodput is the share of all calls.
    """
    return {
        "requests": tally.ended,
        "completed": tally.kinds[Kind.COMPLETED],
        "refused": tally.kinds[Kind.REFUSED],
        "goodput": _round(tally.good / tally.ended) if tally.ended else 0.0,
        "good_per_s": _round(tally.good / span_s) if span_s else 0.0,
        "ttft_s": spread(tally.ttft_s, (0.5, 0.9, 0.99)),
        "tpot_s": spread(tally.tpot_s, (0.5, 0.99)),
        "itl_s": {name: _round(tally.gaps.quantile(share)) for name, share in (("p50", 0.5), ("p99", 0.99))},
        "output_tokens_per_s": _round(tally.output_tokens / span_s) if span_s else 0.0,
        "by_prompt_length": by_prompt_length(tally),
        "errors": {kind.value: tally.kinds[kind] for kind in ERRORS},
        "statuses": {str(status): count for status, count in sorted(tally.statuses.items())},
        "refusals": _refusals(tally),
        "messages": tally.messages,
        "late_s": spread(tally.late_s, (0.5, 0.99)),
        "span_s": _round(span_s),
        "slo": {"ttft_s": tally.slo.ttft, "ttft_per_1k_s": tally.slo.ttft_per_1k, "tpot_s": tally.slo.tpot},
    }


def by_prompt_length(tally: Tally) -> list[float]:
    """Goodput of each quarter of the calls, from the shortest prompts to the longest; equal prompts make no quarters."""
    calls = sorted(zip(tally.prompt_tokens, tally.kept, strict=True), key=lambda call: call[0])
    if not calls or calls[0][0] == calls[-1][0]:
        return []
    cuts = [len(calls) * quarter // 4 for quarter in range(5)]
    parts = (calls[start:end] for start, end in pairwise(cuts) if end > start)
    return [_round(sum(kept for _, kept in part) / len(part)) or 0.0 for part in parts]


def spread(values: array[float], shares: Iterable[float]) -> Json:
    """Mean, the asked quantiles, and nothing but None when there are no values."""
    ordered = sorted(values)
    result: Json = {"mean": _round(sum(ordered) / len(ordered)) if ordered else None}
    for share in shares:
        result[f"p{share * 100:.0f}"] = _round(quantile(ordered, share))
    return result


def _refusals(tally: Tally) -> Json:
    waits, refused = sorted(tally.retry_after_s), tally.kinds[Kind.REFUSED]
    return {
        "with_retry_after": _round(len(waits) / refused) if refused else None,
        "inside_streams": tally.refusals_streamed,
        "retry_after_s": {
            "min": _round(waits[0]) if waits else None,
            "p50": _round(quantile(waits, 0.5)),
            "max": _round(waits[-1]) if waits else None,
        },
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def table(result: Json) -> Table:
    """What a person reads after a run."""
    from rich.table import Table

    lines = Table(show_header=False, box=None, padding=(0, 2))
    rows = {
        "requests": f"{result['requests']} in {result['span_s']:.1f} s: {result['completed']} completed, {result['refused']} refused",
        "goodput": f"{result['goodput']:.1%}, {result['good_per_s']:.2f} good answers/s",
        "  good is": good(result["slo"]),
        "TTFT": _times(result["ttft_s"]),
        "TPOT": _times(result["tpot_s"]),
        "ITL": _times(result["itl_s"]),
        "output tokens/s": f"{result['output_tokens_per_s']:.1f}",
        "errors": ", ".join(f"{kind} {count}" for kind, count in result["errors"].items() if count) or "none",
        "statuses": ", ".join(f"{status}: {count}" for status, count in result["statuses"].items()) or "none",
        "sent late by": _times(result["late_s"]),
    }
    if result["by_prompt_length"]:
        rows["goodput by length"] = "  ".join(f"{share:.1%}" for share in result["by_prompt_length"]) + "  (shortest prompts first)"
    if result["refused"]:
        rows["Retry-After"] = _retry_after(result["refusals"])
    for name, text in rows.items():
        lines.add_row(name, text)
    return lines


def good(slo: Json) -> str:
    """The objective in words."""
    per_1k = f" + {slo['ttft_per_1k_s']:g} s per 1,000 prompt tokens" if slo["ttft_per_1k_s"] else ""
    return f"TTFT <= {slo['ttft_s']:g} s{per_1k}, mean time between tokens <= {slo['tpot_s']:g} s"


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
