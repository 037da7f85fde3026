"""Every metric there is. Names are final: dashboards and alerts stand on them.

Times are seconds and sizes tokens. Labels are bounded: classes and nodes come from the configuration, tenants are the first
`ledger.TENANTS` seen and `other`, keys the first `families.KEYS` configured and `other`, all else is an enum of ours.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(msgspec.Struct, frozen=True):
    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds, without the infinite one."""


WAITS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.175, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
WHOLES = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 300.0, 600.0, 1800.0)
STEPS = (0.002, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
TOKENS = (1, 4, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 131_072)
RETRIES = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
WRITES = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

_COUNTER, _GAUGE, _HISTOGRAM = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

CATALOG: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        # A request's life
        Metric("penstock_arrivals_total", _COUNTER, "Requests that came in, read and authorised.", ("class",)),
        Metric("penstock_requests_total", _COUNTER, "Requests that ended, by how; each ends once.", ("class", "outcome")),
        Metric("penstock_rungs_total", _COUNTER, "Rungs of their class's ladder that requests took.", ("class", "rung")),
        Metric("penstock_recalls_total", _COUNTER, "Times a request was called back from a node for one of a higher class.", ("class",)),
        Metric("penstock_hedges_total", _COUNTER, "Overdue requests that were tried on a second node.", ("class",)),
        Metric("penstock_continuations_total", _COUNTER, "Streams that broke off on one node and went on from another.", ("class",)),
        Metric("penstock_live_requests", _GAUGE, "Requests that came in and have not ended."),
        Metric("penstock_untracked_requests_total", _COUNTER, "Requests dropped from the books because their end was never told."),
        Metric("penstock_turned_away_total", _COUNTER, "Calls answered with an error before they were scheduled.", ("code",)),
        Metric("penstock_answers_total", _COUNTER, "Whole answers, by the engine's status.", ("status",)),
        Metric("penstock_cancellations_total", _COUNTER, "Callers that left, by how far their request was.", ("stage",)),
        Metric("penstock_retry_after_seconds", _HISTOGRAM, "Waits told to refused callers, by reason.", ("reason",), RETRIES),
        Metric(
            "penstock_returns_total", _COUNTER, "Callers that came back when told to, by whether they were let in.", ("class", "admitted")
        ),
        Metric("penstock_deadlines_total", _COUNTER, "Answers of classes with a deadline, by whether they met it.", ("class", "met")),
        # Latency
        Metric("penstock_queue_wait_seconds", _HISTOGRAM, "Arrival to first forward.", ("class",), WAITS),
        Metric("penstock_time_to_first_token_seconds", _HISTOGRAM, "Arrival to first output of a stream.", ("class",), WAITS),
        Metric("penstock_request_duration_seconds", _HISTOGRAM, "Arrival to the end of a successful answer.", ("class",), WHOLES),
        Metric("penstock_time_per_output_token_seconds", _HISTOGRAM, "A stream's mean time between tokens.", ("class",), STEPS),
        Metric("penstock_inter_token_seconds", _HISTOGRAM, "Time between tokens, as a node's mean over about a second.", ("node",), STEPS),
        Metric(
            "penstock_prediction_error_seconds",
            _HISTOGRAM,
            "Distance of the time to first token from its prediction; late is later than predicted.",
            ("direction",),
            WAITS,
        ),
        Metric(
            "penstock_inter_token_error_seconds",
            _HISTOGRAM,
            "Distance of a stream's mean time between tokens from its prediction; slower is slower than predicted.",
            ("direction",),
            STEPS,
        ),
        Metric(
            "penstock_output_length_error_tokens",
            _HISTOGRAM,
            "Distance of an answer's length from its prediction; longer is longer than predicted.",
            ("direction",),
            TOKENS,
        ),
        # Tokens
        Metric("penstock_prompt_tokens_total", _COUNTER, "Prompt tokens of successful answers.", ("class",)),
        Metric("penstock_cached_prompt_tokens_total", _COUNTER, "Those of them that engines found in their caches.", ("class",)),
        Metric("penstock_output_tokens_total", _COUNTER, "Output tokens of successful answers.", ("class",)),
        Metric("penstock_tenant_requests_total", _COUNTER, "Requests that came in, by tenant.", ("tenant",)),
        Metric("penstock_tenant_tokens_total", _COUNTER, "Prompt and output tokens of successful answers, by tenant.", ("tenant",)),
        # Keys
        Metric("penstock_key_requests_total", _COUNTER, "Requests that a key was served, or is charged with.", ("key",)),
        Metric("penstock_key_tokens_total", _COUNTER, "Tokens a key has used; cached ones are prompt tokens too.", ("key", "kind")),
        Metric("penstock_key_spend_total", _COUNTER, "What a key's tokens cost by `prices`.", ("key",)),
        Metric("penstock_key_refusals_total", _COUNTER, "Requests kept out by a key's limits, by limit.", ("key", "limit")),
        Metric("penstock_key_running", _GAUGE, "Requests under way of a key with limits.", ("key",)),
        Metric("penstock_key_limit_used_ratio", _GAUGE, "Share of a key's limit that is used.", ("key", "limit", "window_s")),
        # Nodes, as events tell
        Metric("penstock_forwards_total", _COUNTER, "Requests sent to a node.", ("node",)),
        Metric("penstock_retries_total", _COUNTER, "Those of them that another node had failed before.", ("node",)),
        Metric("penstock_failures_total", _COUNTER, "Requests a node failed, by what went wrong.", ("node", "failure")),
        Metric("penstock_node_prompt_tokens_total", _COUNTER, "Prompt tokens of successful answers, by node.", ("node",)),
        Metric("penstock_node_cached_tokens_total", _COUNTER, "Those of them found in the node's cache.", ("node",)),
        Metric("penstock_node_output_tokens_total", _COUNTER, "Output tokens of successful answers, by node.", ("node",)),
        Metric("penstock_node_losses_total", _COUNTER, "Times a node stopped to answer probes.", ("node",)),
        # Nodes, as the core sees them
        Metric("penstock_node_state", _GAUGE, "1 for the state a node is in.", ("node", "state")),
        Metric("penstock_node_breaker", _GAUGE, "1 for the state a node's breaker is in.", ("node", "state")),
        Metric("penstock_node_running", _GAUGE, "Requests forwarded to a node and not ended.", ("node",)),
        Metric("penstock_node_prefilling", _GAUGE, "Those of them that have shown no token yet.", ("node",)),
        Metric("penstock_node_backlog_seconds", _GAUGE, "Predicted prefill ahead of a new request.", ("node",)),
        Metric("penstock_node_kv_reserved_tokens", _GAUGE, "Tokens of KV memory reserved on a node.", ("node",)),
        Metric("penstock_node_kv_capacity_tokens", _GAUGE, "Tokens of KV memory a node has, where known.", ("node",)),
        Metric("penstock_node_kv_used_tokens", _GAUGE, "Those of them that prompts and answers hold by now, by our count.", ("node",)),
        Metric("penstock_node_kv_used_ratio", _GAUGE, "Used over reserved tokens of KV memory; the rest is over-reservation.", ("node",)),
        Metric("penstock_node_kv_rounding_tokens", _GAUGE, "Tokens of KV memory reserved only because pages are whole.", ("node",)),
        Metric("penstock_node_prefill_tokens_per_second", _GAUGE, "Learned prefill rate of a node.", ("node",)),
        Metric("penstock_node_inter_token_seconds", _GAUGE, "Learned mean time between tokens of a node.", ("node",)),
        Metric("penstock_node_prefix_blocks", _GAUGE, "Prefix blocks believed cached on a node.", ("node",)),
        Metric("penstock_node_reported_running", _GAUGE, "Requests running by the node's own account.", ("node",)),
        Metric("penstock_node_reported_waiting", _GAUGE, "Requests waiting by the node's own account.", ("node",)),
        Metric("penstock_node_reported_kv_ratio", _GAUGE, "Share of KV memory in use by the node's own account.", ("node",)),
        # Durable jobs
        Metric("penstock_tickets", _GAUGE, "Tickets and batch requests that have not ended, by state.", ("state",)),
        Metric("penstock_tickets_total", _COUNTER, "Tickets and batch requests that ended, by how; each ends once.", ("state",)),
        Metric("penstock_ticket_retries_total", _COUNTER, "Runs of tickets and batch requests that failed on our side and were repeated."),
        Metric("penstock_ticket_store_seconds", _HISTOGRAM, "Transactions of the store, to the disk.", (), WRITES),
        Metric("penstock_ticket_store_failures_total", _COUNTER, "Times the store could not be written."),
        # Queues, knobs, the process
        Metric("penstock_queue_waiting", _GAUGE, "Requests that wait for a model in a pool, by class.", ("model", "pool", "class")),
        Metric("penstock_queue_oldest_seconds", _GAUGE, "Wait of the oldest request that waits for a model in a pool.", ("model", "pool")),
        Metric("penstock_queue_drained_per_second", _GAUGE, "Rate at which what waits for a model is forwarded.", ("model", "pool")),
        Metric("penstock_knob", _GAUGE, "The scheduler's knobs.", ("knob",)),
        Metric("penstock_knob_changes_total", _COUNTER, "Times knobs were turned."),
        Metric("penstock_config_changes_total", _COUNTER, "Times the configuration was replaced."),
        Metric("penstock_info", _GAUGE, "1, with the version that runs, and whether it is compiled.", ("version", "build")),
        Metric("penstock_uptime_seconds", _GAUGE, "Time since the gateway started."),
        Metric("penstock_connections", _GAUGE, "Callers' connections that are open."),
        Metric("penstock_http_refusals_total", _COUNTER, "Requests refused as HTTP: malformed, too large or too slow.", ("code",)),
        Metric("penstock_repeats_total", _COUNTER, "Calls with a known Idempotency-Key, by what became of them.", ("how",)),
        Metric("penstock_repeat_answers_bytes", _GAUGE, "Memory of answers kept for repeats."),
        Metric("penstock_journal_failed", _GAUGE, "1 once the journal could no longer be written."),
    )
}
