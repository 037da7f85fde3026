"""The shared nouns: what is known of a call, of a node, and of how a call ended.

Law: no I/O, no clock, nothing mutable. Times are seconds, sizes are tokens unless the name says otherwise.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

BLOCK_TOKENS = 512
"""Tokens covered by one prefix block hash; Mooncake's trace and the wire's 2 KiB slices use the same size."""


class Route(StrEnum):
    """What kind of answer the caller wants."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"


class Outcome(StrEnum):
    """How a request ended. Closed, and final: each request gets exactly one."""

    COMPLETED = "completed"
    REFUSED_FULL = "refused_full"
    """The queue was at its bound."""
    REFUSED_DEADLINE = "refused_deadline"
    """No node could have served it inside its deadline."""
    EXPIRED = "expired"
    """It was queued, and its deadline came too close to start it."""
    UNAVAILABLE = "unavailable"
    """No healthy node serves the model."""
    DIVERTED = "diverted"
    """The process took it: an answer kept from before, or a durable job."""
    FAILED = "failed"
    """Engines failed it, and no retry was left."""
    CANCELLED = "cancelled"
    """The caller left."""


class Failure(StrEnum):
    """What went wrong between us and a node."""

    CONNECT = "connect"
    RESET = "reset"
    TIMEOUT = "timeout"
    PROTOCOL = "protocol"
    """The node's bytes were not HTTP, or broke a limit."""
    STATUS = "status"
    """A 5xx answer other than "busy"."""
    BUSY = "busy"
    """429 or 503: the node is alive and full."""
    REFUSED = "refused"
    """It would not go on, or not exactly, with an answer that another node began."""


class Form(StrEnum):
    """What there is of an answer that broke off, and that a node must know how to go on with."""

    CHAT = "chat"
    """An assistant's message."""
    THOUGHTS = "thoughts"
    """One with what was thought before it, or only that."""
    COMPLETION = "completion"


class Request(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Facts about a call that the wire shows. What the engine will make of it (output length) is not among them."""

    id: int
    model: str
    """The engine's name for the model, aliases resolved."""
    route: str = "chat"
    tenant: str = ""
    prompt_tokens: int = 1
    """Estimated from bytes, or exact once prepared."""
    max_tokens: int = 0
    """The caller's cap on output tokens; 0 when none was given."""
    stream: bool = False
    blocks: tuple[int, ...] = ()
    """Chained 64-bit hashes of the prompt's full blocks of `BLOCK_TOKENS`, salted by tenant."""
    session: str = ""
    task: str = ""
    """The class that the caller asked for and may ask for; empty: the rules decide."""
    max_priority: int = 5
    """Cap of the caller's key."""
    ladder: tuple[str, ...] | None = None
    """Rungs that the caller allows, of those of its class."""
    headers: dict[str, str] = {}
    """Those headers that rules look at, names in lower case."""
    metadata: dict[str, str] = {}
    """Those fields of `metadata` that rules look at, as text."""
    cached: bool = False
    """An answer to the very same request is at hand."""
    retry: int = -1
    """How many tries its caller says went before it; -1: it does not say. A hint, for nobody can tell whether it is true."""
    ticket: bool = False
    """A durable job can be made of it."""
    patient: bool = False
    """A durable job: it has no deadline and waits as long as it takes."""
    difficulty: float = 0.0
    """How much it asks of the model, 0 to 1: said by the caller, else an estimate."""


class Signals(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a node reports of itself; None where it reports nothing. Input from outside: the core checks ranges."""

    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None
    """Share of KV memory in use, 0 to 1."""
    models: tuple[str, ...] | None = None
    engine: str | None = None
    """What kind of engine it is, as configured or found out."""
    continues: tuple[Form, ...] = ()
    """What it goes on with where another node broke off."""


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long an engine's step takes and what fits in its memory.

    A step lasts `c0_s + c1_s * decoding sequences + c2_s * their summed context + c3_s * prefill tokens in the step`.
    """

    name: str
    source: str
    """Where the numbers come from."""
    c0_s: float
    c1_s: float
    c2_s: float
    c3_s: float
    kv_tokens: int
    """Tokens of KV memory for running sequences."""
    cache_tokens: int = 0
    """Tokens of prefix cache apart from it; 0: the cache lives in what the KV pool has free."""
    max_sequences: int = 256
    chunk_tokens: int = 2_048
    """Prefill tokens a step may hold."""
    page_tokens: int = 16


class NodeSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One node as the core sees it."""

    name: str
    state: str
    """`up`, `draining`, `lost`."""
    breaker: str
    """`closed`, `open`, `half_open`."""
    running: int
    """Requests forwarded and not ended."""
    prefilling: int
    """Those of them that have shown no token yet."""
    backlog_s: float
    """Predicted prefill still ahead of a new request."""
    kv_reserved_tokens: int
    kv_tokens: int | None
    kv_used_tokens: int | None = None
    """Of the reserved ones, those that prompts and answers hold by now, by our own count; None while the size is unknown."""
    kv_rounding_tokens: int | None = None
    """Reserved only because pages are whole."""
    prefill_tokens_per_s: float
    itl_s: float
    """Learned mean time between tokens; 0 while unknown."""
    prefix_blocks: int
    reported: Signals


class LaneSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The requests that wait for one model in one pool."""

    model: str
    pool: str = ""
    """Empty for those that belong to none."""
    waiting: int
    oldest_s: float
    drained_per_s: float
    classes: dict[str, int]


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What the control loops, the admin API and the gauges read."""

    nodes: tuple[NodeSnapshot, ...]
    lanes: tuple[LaneSnapshot, ...]
    knobs: dict[str, float]


class WindowUse(msgspec.Struct, frozen=True, kw_only=True):
    """One limit of a key, and how much of it is used. Costs are in the currency of `prices`."""

    limit: str
    """`requests`, `tokens`, `cost`."""
    window_s: float
    most: float
    used: float
    """Within the window, with what calls under way have reserved."""
    reset_s: float
    """Until nothing of it is used, if nothing more is."""


class KeyUse(msgspec.Struct, frozen=True, kw_only=True):
    """What a key has used since the gateway started."""

    name: str
    requests: int
    prompt_tokens: int
    cached_tokens: int
    """Those of them that engines found in their caches."""
    output_tokens: int
    cost: float
    running: int
    """Requests under way; counted for keys with limits only."""
    concurrency: int | None
    refused: dict[str, int]
    """Requests kept out, by limit."""
    windows: tuple[WindowUse, ...]


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What the process around the core tells of itself."""

    connections: int = 0
    """Callers' connections that are open."""
    http_refusals: dict[str, int] = {}
    """Requests that were not well-formed HTTP, or too large or too slow, by error code."""
    journal: str = "off"
    """`off`, `on`, or `failed: ` and why."""
    repeats: dict[str, int] = {}
    """Calls with a known `Idempotency-Key`: `replayed`, `joined` while the first ran, `refused`."""
    repeat_bytes: int = 0
    """Memory of answers kept for them."""
