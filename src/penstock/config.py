"""The frozen configuration tree. The JSON Schema, the docs and the checks are generated from these fields.

Pure: file contents reach `gateway.settings`, which turns YAML into this tree and errors into key and line.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from penstock.knobs import Knobs

Name = Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A section of the configuration: immutable, and an unknown key in it is an error."""


class Tls(Part, frozen=True, kw_only=True):
    cert: str
    """PEM file with the certificate chain."""
    key: str
    """PEM file with the private key."""


class Listen(Part, frozen=True, kw_only=True):
    host: str = "127.0.0.1"
    """Address to listen on; one that other machines reach needs keys."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """0 takes any free one."""
    tls: Tls | None = None
    """Serve HTTPS."""
    cors: tuple[str, ...] = ()
    """Origins that browsers may call from; `*` for any."""
    hosts: tuple[str, ...] = ()
    """Host header values accepted; empty accepts any well-formed one."""


class Key(Part, frozen=True, kw_only=True):
    """A caller's key: exactly one of `env`, `sha256`."""

    name: Name
    """The tenant it stands for."""
    env: str | None = None
    """Environment variable that holds the key."""
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the key, hexadecimal."""
    max_priority: Annotated[int, Meta(ge=1, le=5)] = 5
    """Highest priority that its requests may have."""


class Node(Part, frozen=True, kw_only=True):
    name: Name
    """Its name in metrics, in pools and in `x-penstock-node`."""
    url: Annotated[str, Meta(pattern="^https?://[^/?#@ ]+(/[^?# ]*)?$")]
    """Where its OpenAI API is, without `/v1`."""
    models: tuple[str, ...] = ()
    """Models it serves; empty: asked of its /v1/models."""
    key_env: str | None = None
    """Environment variable with the key to send it."""
    ca: str | None = None
    """PEM file with the authority that signed its certificate."""
    sni: str | None = None
    """Name its certificate must have, when not the one in `url`."""
    max_running: Count | None = None
    """Requests it is given at once at most."""
    kv_tokens: Count | None = None
    """Tokens of KV memory it has."""
    profile: str | None = None
    """Name of a shipped profile, for KV size and starting rates."""


class Range(Part, frozen=True, kw_only=True):
    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None


class When(Part, frozen=True, kw_only=True):
    """What a request must match, all of it. Names are globs."""

    model: str | None = None
    """As the engines name it."""
    route: str | None = None
    """`chat`, `completions` or `embeddings`."""
    tenant: str | None = None
    """The name of the caller's key."""
    stream: bool | None = None
    """Whether a streamed answer was asked for."""
    prompt_tokens: Range | None = None
    """Estimated size of the prompt."""


class Class(Part, frozen=True, kw_only=True):
    """A task class. Rules are tried in order; the first that matches names the class."""

    name: Name
    """Its name in metrics."""
    when: When = When()
    """What belongs to it; empty: everything."""
    priority: Annotated[int, Meta(ge=1, le=5)] = 3
    """5 is the most urgent."""
    ttft_ms: Positive | None = None
    """Deadline of the first token."""
    ttft_ms_per_1k: Annotated[float, Meta(ge=0)] = 0.0
    """Added to `ttft_ms` for each 1,000 prompt tokens."""
    tpot_ms: Positive | None = None
    """Mean time between tokens to keep."""
    total_ms: Positive | None = None
    """Deadline of the whole answer."""


class Pool(Part, frozen=True, kw_only=True):
    """A named group of nodes that serves some models."""

    name: Name
    nodes: tuple[str, ...]
    models: tuple[str, ...] = ()


class Policy(Part, frozen=True, kw_only=True):
    """Which policy of each kind decides; `module:Class` names one from outside."""

    order: str = "deadline"
    """Which waiting request goes first: `deadline`, `fcfs`."""
    admit: str = "slo"
    """What is accepted: `slo` refuses what no node can serve in time, `bounded` only what exceeds the queue's bound."""
    score: dict[str, float] = msgspec.field(default_factory=lambda: {"latency": 1.0})
    """Score policies and their weights."""
    pick: str = "best"
    """From scores to one node: `best`, or `two`, the better of two drawn ones."""


class Hold(Part, frozen=True, kw_only=True):
    quiet_s: Annotated[float, Meta(ge=0, le=3600)] = 5.0
    """Seconds of silence before a waiting stream is committed with 200."""
    interval_s: Annotated[float, Meta(gt=0, le=3600)] = 15.0
    """Seconds between queue positions sent to a waiting caller."""
    json: bool = False
    """Feed waiting JSON calls newlines, as DeepSeek's API does."""


class Limits(Part, frozen=True, kw_only=True):
    request_line_bytes: Count = 8_192
    """Request line."""
    header_line_bytes: Count = 8_192
    """One header line."""
    headers_bytes: Count = 32_768
    """All headers of a message together."""
    headers: Count = 100
    """Number of headers."""
    body_bytes: Count = 16_777_216
    """Request body."""
    json_depth: Count = 64
    """Nesting of a request body."""
    header_s: Positive = 10.0
    """Time for a request's whole head."""
    body_s: Positive = 30.0
    """Time for a request's body."""
    keepalive_s: Positive = 75.0
    """Idle time of a caller's connection."""
    connect_s: Positive = 2.0
    """Time to connect to an engine."""
    first_byte_s: Positive = 600.0
    """Longest time an engine may take to begin an answer."""
    idle_s: Positive = 30.0
    """Longest silence inside a streamed answer."""
    write_s: Positive = 30.0
    """Longest time a caller may leave written bytes unread."""
    stream_s: Positive = 1_800.0
    """Longest streamed answer."""
    drain_s: Positive = 30.0
    """Time that running answers are given when the gateway stops."""
    connections: Count = 10_000
    """Callers' connections at once."""
    buffer_bytes: Count = 262_144
    """Answer bytes held for a slow caller before its engine's connection is paused."""
    max_tokens: Count = 1_000_000
    """Largest `max_tokens` of a request."""
    messages: Count = 4_096
    """Messages in a request."""
    n: Count = 16
    """Choices in a request (`n`, `best_of`)."""


class Config(Part, frozen=True, kw_only=True):
    listen: Listen = Listen()
    """Where callers come."""
    admin: Listen = Listen(port=8081)
    """Where metrics and state are served."""
    admin_key_env: str | None = None
    """Environment variable with the key of the admin listener."""
    keys: tuple[Key, ...] = ()
    """Callers' keys; none: any caller is served, on a loopback address only."""
    nodes: tuple[Node, ...] = ()
    """The engines."""
    aliases: dict[str, str] = {}
    """Names callers may use -> engines' names."""
    classes: tuple[Class, ...] = ()
    """Task classes, in the order they are tried."""
    pools: tuple[Pool, ...] = ()
    """Groups of nodes for some models."""
    policy: Policy = msgspec.field(default_factory=Policy)
    """How it is decided."""
    knobs: Knobs = Knobs()
    """The scheduler's numbers."""
    hold: Hold = Hold()
    """What a caller who waits is sent."""
    limits: Limits = Limits()
    """What a request, a connection and an engine may take."""
    probe_s: Positive = 1.0
    """Seconds between probes of a node."""
