"""The ledger's and the core's numbers by metric, as plain values for whoever writes them out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from penstock.facts import Host, KeyUse, NodeSnapshot, Snapshot
from penstock.metrics.books import JobBook
from penstock.metrics.catalog import CATALOG, Metric
from penstock.metrics.histogram import Histogram
from penstock.metrics.ledger import Ledger

Value = int | float | Histogram
Samples = list[tuple[tuple[str, ...], Value]]

STATES = ("up", "draining", "lost")
BREAKERS = ("closed", "open", "half_open")


class Family(msgspec.Struct, frozen=True):
    """A metric and its samples: label values in the metric's order, each with a number or histogram."""

    metric: Metric
    samples: Samples


def booked(ledger: Ledger) -> Iterator[Family]:
    """Everything that the ledger derived from events."""
    yield from _requests(ledger)
    yield from _nodes(ledger)
    yield _one("penstock_live_requests", len(ledger.live))
    yield _one("penstock_untracked_requests_total", ledger.untracked)
    yield _one("penstock_knob_changes_total", ledger.knob_changes)
    yield _one("penstock_config_changes_total", ledger.config_changes)
    yield _by("penstock_turned_away_total", ledger.turned_away)
    yield _by("penstock_answers_total", {str(status): count for status, count in ledger.answers.items()})
    yield _by("penstock_cancellations_total", ledger.cancellations)
    yield _by("penstock_retry_after_seconds", {str(outcome): waits for outcome, waits in ledger.retry_after_s.items()})
    yield _by("penstock_prediction_error_seconds", {"late": ledger.late_s, "early": ledger.early_s})
    yield _by("penstock_inter_token_error_seconds", {"slower": ledger.slower_s, "faster": ledger.faster_s})
    yield _by("penstock_output_length_error_tokens", {"longer": ledger.longer_tokens, "shorter": ledger.shorter_tokens})
    yield _by("penstock_tenant_requests_total", {name: book.requests for name, book in ledger.tenants.items()})
    yield _by("penstock_tenant_tokens_total", {name: book.tokens for name, book in ledger.tenants.items()})
    yield from _jobs(ledger.jobs)


def _jobs(book: JobBook) -> Iterator[Family]:
    yield _by("penstock_tickets", {"queued": book.queued, "running": book.running})
    yield _by("penstock_tickets_total", book.ended)
    yield _one("penstock_ticket_retries_total", book.retries)
    yield _one("penstock_ticket_store_seconds", book.store_s)
    yield _one("penstock_ticket_store_failures_total", book.unstored)


def _requests(ledger: Ledger) -> Iterator[Family]:
    books = ledger.classes.items()
    yield _by("penstock_arrivals_total", {name: book.arrivals for name, book in books})
    outcomes = [((name, str(outcome)), count) for name, book in books for outcome, count in book.outcomes.items()]
    yield _family("penstock_requests_total", outcomes)
    returned = [
        ((name, admitted), count) for name, book in books for admitted, count in book.returned.items() if sum(book.returned.values())
    ]
    yield _family("penstock_returns_total", returned)
    yield _family("penstock_rungs_total", [((name, rung), count) for name, book in books for rung, count in book.rungs.items()])
    yield _by("penstock_recalls_total", {name: book.recalls for name, book in books})
    yield _by("penstock_hedges_total", {name: book.hedges for name, book in books})
    yield _by("penstock_continuations_total", {name: book.continued for name, book in books})
    kept = [((name, met), count) for name, book in books if book.bounded for met, count in (("true", book.met), ("false", book.missed))]
    yield _family("penstock_deadlines_total", kept)
    yield _by("penstock_queue_wait_seconds", {name: book.queue_s for name, book in books})
    yield _by("penstock_time_to_first_token_seconds", {name: book.ttft_s for name, book in books})
    yield _by("penstock_request_duration_seconds", {name: book.duration_s for name, book in books})
    yield _by("penstock_time_per_output_token_seconds", {name: book.tpot_s for name, book in books})
    yield _by("penstock_prompt_tokens_total", {name: book.prompt_tokens for name, book in books})
    yield _by("penstock_cached_prompt_tokens_total", {name: book.cached_tokens for name, book in books})
    yield _by("penstock_output_tokens_total", {name: book.output_tokens for name, book in books})


def _nodes(ledger: Ledger) -> Iterator[Family]:
    books = ledger.nodes.items()
    yield _by("penstock_forwards_total", {name: book.forwards for name, book in books})
    yield _by("penstock_retries_total", {name: book.retries for name, book in books})
    failures = [((name, str(failure)), count) for name, book in books for failure, count in book.failures.items()]
    yield _family("penstock_failures_total", failures)
    yield _by("penstock_inter_token_seconds", {name: book.itl_s for name, book in books})
    yield _by("penstock_node_prompt_tokens_total", {name: book.prompt_tokens for name, book in books})
    yield _by("penstock_node_cached_tokens_total", {name: book.cached_tokens for name, book in books})
    yield _by("penstock_node_output_tokens_total", {name: book.output_tokens for name, book in books})
    yield _by("penstock_node_losses_total", {name: book.losses for name, book in books})


def seen(snapshot: Snapshot) -> Iterator[Family]:
    """Gauges of the core's present state."""
    nodes = snapshot.nodes
    yield _family("penstock_node_state", _states([(node.name, node.state) for node in nodes], STATES))
    yield _family("penstock_node_breaker", _states([(node.name, node.breaker) for node in nodes], BREAKERS))
    for name, field in GAUGES.items():
        yield _by(name, {node.name: value for node in nodes if (value := _value(node, field)) is not None})
    known = [node for node in nodes if node.kv_used_tokens is not None and node.kv_reserved_tokens]
    yield _by("penstock_node_kv_used_ratio", {node.name: (node.kv_used_tokens or 0) / node.kv_reserved_tokens for node in known})
    lanes = snapshot.lanes
    waiting: Samples = [((lane.model, lane.pool, name), count) for lane in lanes for name, count in lane.classes.items()]
    yield _family("penstock_queue_waiting", waiting)
    yield _family("penstock_queue_oldest_seconds", [((lane.model, lane.pool), lane.oldest_s) for lane in lanes])
    yield _family("penstock_queue_drained_per_second", [((lane.model, lane.pool), lane.drained_per_s) for lane in lanes])
    yield _by("penstock_knob", snapshot.knobs)


KEYS = 256
"""Keys shown apart, in the order of the configuration."""
OTHER = "other"


def spent(keys: Iterable[KeyUse]) -> Iterator[Family]:
    """Of each key; those beyond `KEYS` are summed up."""
    shown = [(key.name if index < KEYS else OTHER, key) for index, key in enumerate(keys)]
    yield _summed("penstock_key_requests_total", (((name,), key.requests) for name, key in shown))
    yield _summed("penstock_key_spend_total", (((name,), key.cost) for name, key in shown))
    yield _summed("penstock_key_running", (((name,), key.running) for name, key in shown))
    kinds = ("prompt", "cached", "output")
    tokens = (((name, kind), count) for name, key in shown for kind, count in zip(kinds, _tokens(key), strict=True))
    yield _summed("penstock_key_tokens_total", tokens)
    yield _summed("penstock_key_refusals_total", (((name, kind), n) for name, key in shown for kind, n in key.refused.items()))
    ratios = [
        ((key.name, window.limit, f"{window.window_s:g}"), window.used / window.most) for _, key in shown[:KEYS] for window in key.windows
    ]
    yield _family("penstock_key_limit_used_ratio", ratios)


def _tokens(key: KeyUse) -> tuple[int, int, int]:
    return key.prompt_tokens, key.cached_tokens, key.output_tokens


def _summed(name: str, samples: Iterable[tuple[tuple[str, ...], float]]) -> Family:
    """Samples with the same labels added up."""
    sums: dict[tuple[str, ...], float] = {}
    for labels, value in samples:
        sums[labels] = sums.get(labels, 0) + value
    return _family(name, sums.items())


GAUGES = {
    "penstock_node_running": "running",
    "penstock_node_prefilling": "prefilling",
    "penstock_node_backlog_seconds": "backlog_s",
    "penstock_node_kv_reserved_tokens": "kv_reserved_tokens",
    "penstock_node_kv_used_tokens": "kv_used_tokens",
    "penstock_node_kv_rounding_tokens": "kv_rounding_tokens",
    "penstock_node_kv_capacity_tokens": "kv_tokens",
    "penstock_node_prefill_tokens_per_second": "prefill_tokens_per_s",
    "penstock_node_inter_token_seconds": "itl_s",
    "penstock_node_prefix_blocks": "prefix_blocks",
    "penstock_node_reported_running": "reported.running",
    "penstock_node_reported_waiting": "reported.waiting",
    "penstock_node_reported_kv_ratio": "reported.kv_usage",
}
"""Gauge -> the field of `facts.NodeSnapshot` it shows."""


def process(version: str, build: str, uptime_s: float, host: Host) -> Iterator[Family]:
    """Of the process around the core."""
    yield _family("penstock_info", [((version, build), 1)])
    yield _one("penstock_uptime_seconds", uptime_s)
    yield _one("penstock_connections", host.connections)
    yield _by("penstock_http_refusals_total", host.http_refusals)
    yield _by("penstock_repeats_total", host.repeats)
    yield _one("penstock_repeat_answers_bytes", host.repeat_bytes)
    yield _one("penstock_journal_failed", int(host.journal.startswith("failed")))


def _value(node: NodeSnapshot, field: str) -> float | None:
    owner: object = node
    for part in field.split("."):
        owner = getattr(owner, part)
    return owner if isinstance(owner, int | float) else None


def _states(current: Iterable[tuple[str, str]], states: tuple[str, ...]) -> Samples:
    return [((name, state), int(state == now)) for name, now in current for state in states]


def _family(name: str, samples: Iterable[tuple[tuple[str, ...], Value]]) -> Family:
    return Family(CATALOG[name], list(samples))


def _by(name: str, values: Mapping[str, Value] | Mapping[str, int] | Mapping[str, float] | Mapping[str, Histogram]) -> Family:
    return Family(CATALOG[name], [((label,), value) for label, value in values.items()])


def _one(name: str, value: Value) -> Family:
    return Family(CATALOG[name], [((), value)])
