"""The frozen configuration tree. The JSON Schema, the docs and the checks are generated from these fields.

Pure: file contents reach `gateway.settings`, which turns YAML into this tree and errors into key and line.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

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


class KeyLimit(Part, frozen=True, kw_only=True):
    """What a key may use in a sliding window: exactly one of `requests`, `tokens`, `cost`."""

    requests: Count | None = None
    """Requests."""
    tokens: Count | None = None
    """Prompt and output tokens together."""
    cost: Positive | None = None
    """Cost by `prices`, in their currency."""
    window_s: Positive = 60.0
    """Length of the window."""


class Price(Part, frozen=True, kw_only=True):
    """What a million tokens cost."""

    input_per_1m: Annotated[float, Meta(ge=0)] = 0.0
    """Prompt tokens."""
    cached_per_1m: Annotated[float, Meta(ge=0)] | None = None
    """Prompt tokens that the engine found in its cache; as `input_per_1m` where not given."""
    output_per_1m: Annotated[float, Meta(ge=0)] = 0.0
    """Output tokens."""


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
    classes: tuple[str, ...] = ()
    """Classes that its callers may ask for with `x-penstock-class`; names are globs."""
    limits: tuple[KeyLimit, ...] = ()
    """What it may use."""
    concurrency: Count | None = None
    """Requests it may have under way at once."""


class Engine(StrEnum):
    """The kinds of engine that are known by name."""

    AUTO = "auto"
    VLLM = "vllm"
    SGLANG = "sglang"
    LLAMA_CPP = "llama.cpp"
    TENSORRT_LLM = "tensorrt-llm"
    OLLAMA = "ollama"
    OPENAI = "openai"
    """Any URL that speaks OpenAI's API, hosted ones among them."""
    DEEPSEEK = "deepseek"
    """DeepSeek's own API."""


class Role(StrEnum):
    BOTH = "both"
    PREFILL = "prefill"
    DECODE = "decode"


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
    engine: Engine = Engine.AUTO
    """What kind of engine it is: its metrics' names, its health page, how it says "busy", what it can continue; `auto` finds out."""
    labels: dict[str, str] = {}
    """Anything that pools choose nodes by, and that the score `locality` compares: `zone: a`."""
    cost: Annotated[float, Meta(ge=0)] = 0.0
    """What serving there costs, in any unit, beside the other nodes'; the score `cost` prefers less."""
    capacity: Positive = 1.0
    """How much it can do beside the others; its share of what is hashed."""
    role: Role = Role.BOTH
    """`prefill` nodes compute prompts for `decode` nodes, which fetch the KV memory from them."""
    kv_events: Annotated[str, Meta(pattern="^(tcp|ipc)://.+$")] | None = None
    """Where vLLM publishes what its cache holds (ZMQ, `--kv-events-config`)."""
    kv_replay: Annotated[str, Meta(pattern="^(tcp|ipc)://.+$")] | None = None
    """Where it sends again what was missed of that."""


class Range(Part, frozen=True, kw_only=True):
    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None


Test = str | float | Range
"""A glob, a number to equal, or a range of numbers."""


class When(Part, frozen=True, kw_only=True):
    """What a request must match, all of it. Names are globs. `metadata.amount: {gt: 1000}` is short for a `metadata` of one field."""

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
    difficulty: Range | None = None
    """How much is asked of the model, 0 to 1: as the caller says in `metadata.difficulty`, else an estimate."""
    session: str | None = None
    """What the caller says with `x-penstock-session`, or with `prompt_cache_key`."""
    header: dict[str, Test] = {}
    """Request headers by name."""
    metadata: dict[str, Test] = {}
    """Fields of the request's `metadata`; text that is a number is compared as one where the test is numeric."""


class Rung(StrEnum):
    """What may be tried for a request, in the order of its class's ladder."""

    WAIT = "wait"
    """Wait in the queue, with place and time told."""
    SIBLING = "sibling"
    """The pool that its own pool names as `fallback`."""
    CACHE = "cache"
    """An answer given before to the very same request of the same tenant."""
    SMALLER = "smaller"
    """The model that `smaller` names for the one asked."""
    TICKET = "ticket"
    """202 and a durable job to ask for later."""
    REJECT = "reject"
    """A refusal that says when to come back."""


class OnLoss(StrEnum):
    CONTINUE = "continue"
    """Go on elsewhere from where it broke off, where that can be exact; else as `fail`."""
    FAIL = "fail"
    """End with a typed error event."""


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
    timeout: Literal["none"] | None = None
    """`none`: it waits as long as it takes. `timeout: {ttft_ms: 500}` is short for the keys above."""
    value: Annotated[float, Meta(ge=0)] = 1.0
    """What a good answer is worth, for the order `value`."""
    floor: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Share of the fleet's work that the class keeps, however much of higher priority waits."""
    ladder: tuple[Rung, ...] = ()
    """What to try, in order; empty: the configuration's `ladder`."""
    on_loss: OnLoss = OnLoss.CONTINUE
    """What becomes of a stream whose engine is lost after its first byte."""


class PoolWhen(When, frozen=True, kw_only=True):
    """What a request must match to belong to a pool, all of it."""

    task: str | None = msgspec.field(default=None, name="class")
    """The name of its task class; a glob."""


class Pool(Part, frozen=True, kw_only=True):
    """A named group of nodes. A request goes to the first pool whose rule it matches and whose nodes serve its model."""

    name: Name
    nodes: tuple[str, ...] = ()
    """Its nodes by name."""
    labels: dict[str, str] = {}
    """Nodes with all of these labels belong to it, too."""
    models: tuple[str, ...] = ()
    """Models that are served here; empty: those that its nodes serve."""
    when: PoolWhen = PoolWhen()
    """Which requests are served here; empty: all of its models."""
    fallback: Name | None = None
    """The pool that the rung `sibling` tries."""


class HashBy(StrEnum):
    SESSION = "session"
    """What the caller says with `x-penstock-session`, or with `prompt_cache_key`."""
    PREFIX = "prefix"
    """The prompt's first 512 tokens."""
    TENANT = "tenant"
    """The name of the caller's key."""


class Policy(Part, frozen=True, kw_only=True):
    """Which policy of each kind decides; `module:Class` names one from outside."""

    order: str = "fair"
    """Which waiting request goes first, inside priority: `fair`, in turn between tenants and by deadline inside each; `deadline`;
    `value`, the most value for the memory it takes; `fcfs`."""
    admit: str = "slo"
    """What is accepted: `slo` refuses what no node can serve in time, `bounded` only what exceeds the queue's bound."""
    score: dict[str, float] = msgspec.field(default_factory=lambda: {"latency": 1.0})
    """Score policies and their weights, which the knobs `weight_*` turn while requests flow. `latency` counts seconds, `cost` units of
    cost, the others from 0 to 1: beside `latency`, a weight of 0.5 on `session` is worth half a second."""
    pick: str = "best"
    """From scores to one node: `best`; `two`, the better of two drawn ones; or, without scores, `hash`: consistent hashing with bounded
    load."""
    hash_by: tuple[HashBy, ...] = (HashBy.SESSION, HashBy.PREFIX, HashBy.TENANT)
    """What `hash` goes by: the first of these that a request has."""


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
    """Longest time an engine may take to begin an answer that is not streamed."""
    first_token_s: Positive = 30.0
    """Longest time an engine may take to begin a streamed one; longer where its prompt is predicted to take more than half of it."""
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


class Cache(Part, frozen=True, kw_only=True):
    """Answers kept for the rung `cache`: exact matches, apart for each tenant."""

    bytes: Count = 67_108_864
    """Memory for answers."""
    age_s: Positive = 600.0
    """Longest age of an answer."""
    sampled: bool = False
    """Keep answers of requests with a temperature above 0 too; without it, a caller asks with `x-penstock-cache: sampled`."""


class Tickets(Part, frozen=True, kw_only=True):
    """Durable jobs: tickets and batches."""

    path: str | None = None
    """SQLite file; none: one in the state folder of the user who runs the gateway, by address and port."""
    keep_s: Positive = 86_400.0
    """How long results are kept."""
    most: Count = 100_000
    """Jobs that have not ended."""
    running: Count = 64
    """Jobs handed to the scheduler at once."""
    file_bytes: Count = 104_857_600
    """Largest file of a batch."""


class Idempotency(Part, frozen=True, kw_only=True):
    """Answers kept for repeats with the same `Idempotency-Key`."""

    window_s: Positive = 3_600.0
    """How long a repeat is given the first answer."""
    bytes: Count = 67_108_864
    """Memory for answers."""


class Names(Part, frozen=True, kw_only=True):
    """Nodes found by a name in DNS: one for each address."""

    name: Annotated[str, Meta(pattern="^[A-Za-z0-9]([A-Za-z0-9.-]{0,252})$")]
    """Host name; each of its addresses is a node."""
    port: Annotated[int, Meta(ge=1, le=65535)] = 8000
    """Port of all of them."""
    tls: bool = False
    """Speak HTTPS to them, by that name."""
    models: tuple[str, ...] = ()
    """As in `nodes`, for all of them; so are the following."""
    key_env: str | None = None
    """Environment variable with the key to send them."""
    max_running: Count | None = None
    """Requests that each is given at once at most."""
    kv_tokens: Count | None = None
    """Tokens of KV memory each has."""
    profile: str | None = None
    """Name of a shipped profile."""
    engine: Engine = Engine.AUTO
    """What kind of engine they are."""
    labels: dict[str, str] = {}
    """What pools choose them by."""


class Discovery(Part, frozen=True, kw_only=True):
    """Nodes beside those in `nodes`, which come and go while the gateway runs."""

    file: str | None = None
    """YAML or JSON file with a list of nodes, each as in `nodes`; read again when it changes."""
    dns: tuple[Names, ...] = ()
    """Names to look up again and again."""
    every_s: Positive = 5.0
    """Seconds between looks."""


class Reasoning(Part, frozen=True, kw_only=True):
    """What models think before they answer, in one form whatever the engine."""

    normalise: bool = True
    """Move `<think>` text, and other engines' fields, to `reasoning_content`."""
    bytes: Count = 33_554_432
    """Memory for the reasoning behind tool calls, which is put back where a client dropped it."""
    age_s: Positive = 3_600.0
    """How long that is kept."""


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
    labels: dict[str, str] = {}
    """Where this gateway is (`zone: a`): the score `locality` prefers nodes whose `labels` say the same."""
    aliases: dict[str, str] = {}
    """Names callers may use -> engines' names."""
    classes: tuple[Class, ...] = ()
    """Task classes, in the order they are tried."""
    pools: tuple[Pool, ...] = ()
    """Groups of nodes, with rules for what is served where; in the order they are tried."""
    discovery: Discovery = Discovery()
    """Nodes that come and go."""
    reasoning: Reasoning = Reasoning()
    """How what models think is passed on."""
    policy: Policy = msgspec.field(default_factory=Policy)
    """How it is decided."""
    knobs: Knobs = Knobs()
    """The scheduler's numbers."""
    ladder: tuple[Rung, ...] = (Rung.WAIT, Rung.REJECT)
    """What is tried for a request whose class names no ladder."""
    smaller: dict[str, str] = {}
    """Engine's name of a model -> that of the model to serve in its place on the rung `smaller`."""
    cache: Cache = Cache()
    """Answers kept for the rung `cache`."""
    tickets: Tickets = Tickets()
    """Durable jobs."""
    idempotency: Idempotency = Idempotency()
    """Repeats of a request."""
    prices: dict[str, Price] = {}
    """Engine's name of a model -> what it costs; names are globs."""
    hold: Hold = Hold()
    """What a caller who waits is sent."""
    limits: Limits = Limits()
    """What a request, a connection and an engine may take."""
    probe_s: Positive = 1.0
    """Seconds between probes of a node."""
