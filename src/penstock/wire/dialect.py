"""How each kind of engine speaks: where its pages are, what its metrics are called, how it says "not yet" and "not now".

One entry an engine, from its documentation or sources, at the versions of 2026; older names are kept beside. Every engine is spoken to
in OpenAI's API; what is here is the rest.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from penstock.config import Engine

HOSTED_S = 30.0
"""Who serves the whole world need not be asked each second how it is: an answer to a call says that, too."""


class Gauges(msgspec.Struct, frozen=True):
    """What an engine calls its three signals in its metrics; of several names the first that is there counts."""

    running: tuple[bytes, ...] = ()
    waiting: tuple[bytes, ...] = ()
    kv_usage: tuple[bytes, ...] = ()


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """One engine's ways."""

    engine: Engine
    prefix: bytes = b""
    """What the names of its metrics begin with; nobody else's do."""
    gauges: Gauges = Gauges()
    metrics: tuple[str, ...] = ("/metrics",)
    """Pages with its metrics, the best first: which of them there are depends on version and options."""
    health: str = "/health"
    """A page that answers while it lives; empty: the list of models does."""
    unready: frozenset[int] = frozenset()
    """Statuses of that page by which it says itself that it takes no work: it loads its model, or it is about to end."""
    waits: bool = False
    """Its health page has the model work, and answers late while a long prompt is computed: its silence alone means nothing."""
    models: str = "/v1/models"
    owners: frozenset[str] = frozenset()
    """What its list of models names as `owned_by`."""
    api: str = "/v1"
    """What comes before `/chat/completions`."""
    busy: frozenset[int] = frozenset({429, 503})
    """Statuses of calls that mean "not now": the engine is well, and full."""
    every_s: float = 0.0
    """It is asked no more often than this while all is well."""
    continues: str = ""
    """How it is told to go on with an assistant's message that was begun elsewhere; empty: it cannot."""
    thinking: str = ""
    """How it is told to think or not to think before it answers; empty: it cannot be told."""

    @property
    def hosted(self) -> bool:
        return self.every_s > 0


_DIALECTS = (
    # Known by nothing: what most servers have is asked for, and what is missing is not held against it.
    Dialect(engine=Engine.AUTO),
    # A full queue is 503, in versions that can have one; /health is 503 once its engine core has died.
    Dialect(
        engine=Engine.VLLM,
        prefix=b"vllm:",
        gauges=Gauges((b"num_requests_running",), (b"num_requests_waiting",), (b"kv_cache_usage_perc", b"gpu_cache_usage_perc")),
        unready=frozenset({503}),
        owners=frozenset({"vllm"}),
    ),
    # /health has one token generated when nothing runs, as /health_generate does, and is 503 while it starts and once it is to end.
    # A full queue is 503, for streams inside the stream.
    Dialect(
        engine=Engine.SGLANG,
        prefix=b"sglang:",
        gauges=Gauges((b"num_running_reqs",), (b"num_queue_reqs",), (b"token_usage",)),
        unready=frozenset({503}),
        waits=True,
        owners=frozenset({"sglang"}),
    ),
    # Every page is 503 "Loading model" until the model is loaded. Its queue has no end. The usage is told by versions before mid-2025.
    Dialect(
        engine=Engine.LLAMA_CPP,
        prefix=b"llamacpp:",
        gauges=Gauges((b"requests_processing",), (b"requests_deferred",), (b"kv_cache_usage_ratio",)),
        unready=frozenset({503}),
        owners=frozenset({"llamacpp"}),
    ),
    # /metrics is a JSON list of what its iterations were since it was last read; the usual format is beside it.
    Dialect(
        engine=Engine.TENSORRT_LLM,
        prefix=b"trtllm_",
        gauges=Gauges((b"num_requests_running",), (b"num_requests_waiting",), (b"kv_cache_utilization",)),
        metrics=("/prometheus/metrics", "/metrics"),
        unready=frozenset({503}),
        owners=frozenset({"tensorrt_llm"}),
    ),
    # No metrics. A full queue is 503 "server busy".
    Dialect(engine=Engine.OLLAMA, metrics=(), health="/api/version", owners=frozenset({"library"})),
    # Hosted APIs: no pages of health or metrics; 429 is a limit of our key, 503 an overload.
    Dialect(engine=Engine.OPENAI, metrics=(), health="", owners=frozenset({"openai", "openai-internal", "system"}), every_s=HOSTED_S),
    Dialect(
        engine=Engine.DEEPSEEK,
        metrics=(),
        health="",
        models="/models",
        owners=frozenset({"deepseek"}),
        api="",
        every_s=HOSTED_S,
    ),
)

DIALECTS = {dialect.engine: dialect for dialect in _DIALECTS}

_HOSTS = {"api.deepseek.com": Engine.DEEPSEEK, "api.openai.com": Engine.OPENAI}
_LOADING = b'"Loading model"'
"""llama.cpp's word while it loads."""


def of(engine: Engine, url: str) -> Dialect:
    """The dialect of an engine as it is configured: `auto` knows hosted APIs by their names."""
    if engine is Engine.AUTO:
        engine = _HOSTS.get(urlsplit(url).hostname or "", engine)
    return DIALECTS[engine]


def by_owner(owner: str) -> Dialect | None:
    """Whose list of models names its owner so."""
    return next((dialect for dialect in _DIALECTS if owner in dialect.owners), None)


def by_metrics(page: bytes) -> Dialect | None:
    """Whose metrics are on a page."""
    text = b"\n" + page
    return next((dialect for dialect in _DIALECTS if dialect.prefix and b"\n" + dialect.prefix in text), None)


def by_health(page: bytes) -> Dialect | None:
    """Whose page of health this is, where it is unmistakable."""
    return DIALECTS[Engine.LLAMA_CPP] if _LOADING in page else None
