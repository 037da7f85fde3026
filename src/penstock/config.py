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
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    tls: Tls | None = None
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


class Node(Part, frozen=True, kw_only=True):
    name: Name
    url: Annotated[str, Meta(pattern="^https?://[^/?#@ ]+(/[^?# ]*)?$")]
    models: tuple[str, ...] = ()
    """Models it serves; empty: asked of its /v1/models."""
    key_env: str | None = None
    """Environment variable with the key to send it."""
    ca: str | None = None
    """PEM file with the authority that signed its certificate."""
    sni: str | None = None
    max_running: Count | None = None
    kv_tokens: Count | None = None
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
    route: str | None = None
    tenant: str | None = None
    stream: bool | None = None
    prompt_tokens: Range | None = None


class Class(Part, frozen=True, kw_only=True):
    """A task class. Rules are tried in order; the first that matches names the class."""

    name: Name
    when: When = When()
    priority: Annotated[int, Meta(ge=1, le=5)] = 3
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
    admit: str = "slo"
    score: dict[str, float] = msgspec.field(default_factory=lambda: {"latency": 1.0})
    """Score policies and their weights."""
    pick: str = "best"


class Hold(Part, frozen=True, kw_only=True):
    quiet_s: Annotated[float, Meta(ge=0, le=3600)] = 5.0
    """Seconds of silence before a waiting stream is committed with 200."""
    interval_s: Annotated[float, Meta(gt=0, le=3600)] = 15.0
    """Seconds between queue positions sent to a waiting caller."""
    json: bool = False
    """Feed waiting JSON calls newlines, as DeepSeek's API does."""


class Limits(Part, frozen=True, kw_only=True):
    request_line_bytes: Count = 8_192
    header_line_bytes: Count = 8_192
    headers_bytes: Count = 32_768
    headers: Count = 100
    body_bytes: Count = 16_777_216
    json_depth: Count = 64
    header_s: Positive = 10.0
    body_s: Positive = 30.0
    keepalive_s: Positive = 75.0
    connect_s: Positive = 2.0
    first_byte_s: Positive = 600.0
    """Longest time an engine may take to begin an answer."""
    idle_s: Positive = 30.0
    """Longest silence inside a streamed answer."""
    write_s: Positive = 30.0
    """Longest time a caller may leave written bytes unread."""
    stream_s: Positive = 1_800.0
    drain_s: Positive = 30.0
    connections: Count = 10_000
    buffer_bytes: Count = 262_144
    max_tokens: Count = 1_000_000
    messages: Count = 4_096
    n: Count = 16


class Config(Part, frozen=True, kw_only=True):
    listen: Listen = Listen()
    admin: Listen = Listen(port=8081)
    admin_key_env: str | None = None
    keys: tuple[Key, ...] = ()
    nodes: tuple[Node, ...] = ()
    aliases: dict[str, str] = {}
    """Names callers may use -> engines' names."""
    classes: tuple[Class, ...] = ()
    pools: tuple[Pool, ...] = ()
    policy: Policy = msgspec.field(default_factory=Policy)
    knobs: Knobs = Knobs()
    hold: Hold = Hold()
    limits: Limits = Limits()
    probe_s: Positive = 1.0
    """Seconds between probes of a node."""
