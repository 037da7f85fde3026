"""What would become of one request under a configuration: read as the gateway reads it, classified as the core does."""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from collections.abc import Mapping
from math import inf

import msgspec
from msgspec import Raw

from penstock.config import Config, Rung
from penstock.core.classify import Classifier, Step, TaskClass
from penstock.core.condition import PoolStep
from penstock.core.fleet import Node
from penstock.core.members import ANY, NONE, Members, kept, served, tried
from penstock.errors import CallError, ConfigError
from penstock.facts import Request, Route
from penstock.gateway.asked import Form, request
from penstock.gateway.auth import Tenant, keyring
from penstock.http1 import rules
from penstock.wire import openai

MAX_BYTES = 64 * 1024 * 1024
NOBODY = Tenant("", 0)
"""A caller of a gateway with keys, when the file names none."""
PROMPTS = {"messages": Route.CHAT, "prompt": Route.COMPLETIONS, "input": Route.EMBEDDINGS}


class Wrapped(msgspec.Struct):
    """A request with what comes beside its body."""

    body: Raw
    headers: dict[str, str] = {}
    key: str | None = None
    route: Route | None = None


class Walk(msgspec.Struct, frozen=True):
    """A request's way through the rules."""

    request: Request
    task: TaskClass
    steps: tuple[Step, ...]
    untried: tuple[str, ...]
    """Classes whose rules come after the one that matched."""
    ladder: tuple[str, ...]
    notes: tuple[str, ...]
    pools: tuple[PoolStep, ...] = ()
    """Those that were looked at."""
    pools_untried: tuple[str, ...] = ()
    pool: str = NONE
    """The one it belongs to; empty for none."""
    nodes: tuple[str, ...] = ()
    """Those of it that serve the model, of those in the file."""
    siblings: tuple[str, ...] = ()
    """Pools that rungs `sibling` would try for it, in order."""

    @property
    def priority(self) -> int:
        return min(self.task.priority, self.request.max_priority)

    @property
    def patient(self) -> bool:
        return self.task.patient or self.request.patient

    @property
    def ttft_ms(self) -> float | None:
        """When the first token is due; None without such a deadline."""
        return None if self.patient else milliseconds(self.task.first_s(self.request.prompt_tokens))

    @property
    def total_ms(self) -> float | None:
        return None if self.patient else milliseconds(self.task.total_s)


def walk(config: Config, data: bytes, file: str = "", environ: Mapping[str, str] = os.environ) -> Walk:
    """`data` is an OpenAI body, or one in an object with `headers`, `key` (a tenant's name) and `route`. Raises ConfigError."""
    try:
        wrapped = _unwrap(data)
        # On the wire a header is bytes, read one by one.
        headers = rules.fields(f"{name}: {value}".encode().decode("latin-1") for name, value in wrapped.headers.items())
        notes: list[str] = []
        tenant = _tenant(config, wrapped.key, environ, notes)
        form = Form(config.classes, config.pools)
        asked = form.read(headers, tenant)
        body = bytes(wrapped.body)
        route = wrapped.route or _route(body)
        if len(body) > config.limits.body_bytes:
            raise CallError(413, "body_too_large", f"The body is larger than {config.limits.body_bytes} bytes.")
        call = openai.read(route, body, config.limits, tenant.salt, config.aliases, form.metadata)
    except CallError as error:
        raise ConfigError(f"the gateway would answer {error.status} ({error.code}): {error.message}", file=file) from None
    except msgspec.DecodeError as error:
        raise ConfigError(f"not a request: {error}", file=file) from None
    except RecursionError:
        raise ConfigError("not a request: it nests too deep", file=file) from None
    except ConfigError as error:
        raise ConfigError(error.message, key=error.key, file=file) from None
    if (unserved := _unserved(config, call.model)) is not None:
        notes.append(unserved)
    return _classified(config, request(1, route, call, tenant, asked), notes)


def _classified(config: Config, facts: Request, notes: list[str]) -> Walk:
    classify = Classifier(config.classes)
    task, steps = classify.explain(facts)
    untried = () if facts.task else tuple(one.name for one in config.classes[len(steps) :])
    ladder = task.ladder or tuple(map(str, config.ladder))
    if facts.ladder is not None:
        ladder = tuple(rung for rung in ladder if rung in facts.ladder)
    return _placed(config, Walk(facts, task, tuple(steps), untried, ladder, tuple(notes)))


def _placed(config: Config, walked: Walk) -> Walk:
    """With the pool that the core would have it served in, were all nodes of the file there."""
    pools = [Members(pool) for pool in config.pools]
    table = served([Node(index, node, config.knobs, None) for index, node in enumerate(config.nodes)], pools)
    facts, model = walked.request, walked.request.model
    if model not in table.ways and model not in kept(pools):
        model = ANY
    steps = tried(table, pools, model, facts, walked.task)
    pool = steps[-1].pool if steps and steps[-1].matched else NONE
    nodes = table.lanes.get((model, pool), [])
    fallbacks = {pool.name: pool.fallback for pool in pools}
    siblings: list[str] = []
    after = fallbacks.get(pool, NONE)
    while after != NONE and len(siblings) < list(walked.ladder).count(Rung.SIBLING):
        if (model, after) in table.lanes:
            siblings.append(after)
        after = fallbacks[after]
    return msgspec.structs.replace(
        walked,
        pools=tuple(steps),
        pools_untried=tuple(pool.name for pool in pools[len(steps) :]),
        pool=pool,
        nodes=tuple(node.name for node in nodes),
        siblings=tuple(siblings),
    )


def _unwrap(data: bytes) -> Wrapped:
    """A file is a body when it names a model or a prompt, as every body must; else a body in its wrapping."""
    try:
        names = msgspec.json.decode(data, type=dict[str, Raw]).keys()
    except msgspec.ValidationError:
        raise msgspec.DecodeError("it must be a JSON object") from None
    except msgspec.DecodeError:
        if not data.strip():
            raise msgspec.DecodeError("it is empty; give the JSON body of a call") from None
        if data.startswith(BOM_UTF8):
            raise msgspec.DecodeError("it begins with a byte order mark, which JSON has not: save it as UTF-8 without one") from None
        raise
    if "model" in names or names & PROMPTS.keys():
        return Wrapped(Raw(data))
    if unknown := sorted(names - set(Wrapped.__struct_fields__)):
        raise msgspec.DecodeError(
            f"unknown key {unknown[0][:64]!r}; give a call's body, or an object of {', '.join(Wrapped.__struct_fields__)}"
        )
    if "body" not in names:
        raise msgspec.DecodeError("body is missing: give a call's body, or an object that holds one as body")
    try:
        wrapped = msgspec.json.decode(data, type=Wrapped)
    except msgspec.ValidationError:
        raise _wrongly_wrapped(data) from None
    for name, value in wrapped.headers.items():
        # A line's end in a value would be another header.
        if len((name + value).encode().translate(None, rules.PRINTABLE)):
            raise msgspec.DecodeError(f"the header {name[:64]!r} holds characters that no header can")
    return wrapped


def _wrongly_wrapped(data: bytes) -> msgspec.DecodeError:
    """What to say of the first field of a wrapping that is not what it should be."""
    wants = {"headers": "an object of texts", "key": "text: the name of a key", "route": f"one of {', '.join(Route)}"}
    given = msgspec.json.decode(data, type=dict[str, Raw])
    for field in msgspec.structs.fields(Wrapped):
        try:
            if field.name in given:
                msgspec.json.decode(given[field.name], type=field.type)
        except msgspec.ValidationError:
            return msgspec.DecodeError(f"{field.name} must be {wants[field.name]}")
    return msgspec.DecodeError("it is no call's body in its wrapping")


def _route(body: bytes) -> Route:
    try:
        names = msgspec.json.decode(body, type=dict[str, Raw]).keys()
    except msgspec.ValidationError:
        raise msgspec.DecodeError("body must be the body of a call, a JSON object") from None
    return next((route for name, route in PROMPTS.items() if name in names), Route.CHAT)


def _tenant(config: Config, name: str | None, environ: Mapping[str, str], notes: list[str]) -> Tenant:
    ring = keyring(config, environ)
    known = ring.named()
    if name is None and not ring.open:
        notes.append(f"no key is named: the gateway asks for one of {', '.join(known)}")
        return NOBODY
    if name is not None and name not in known:
        raise ConfigError(f"no tenant is named {name[:64]!r}; known: {', '.join(known) or 'none, as no key is configured'}", key="key")
    tenant = ring.tenant(None) if name is None else known[name]
    return tenant or NOBODY


def _unserved(config: Config, model: str) -> str | None:
    """What to say of a model that no node serves, where all have said what they serve."""
    if not config.nodes or not all(node.models for node in config.nodes):
        return None
    served = sorted({name for node in config.nodes for name in node.models} | {name for pool in config.pools for name in pool.models})
    return None if model in served else f"no node serves {model!r}, so the gateway would answer 404; they serve {', '.join(served)}"


def milliseconds(seconds: float) -> float | None:
    return None if seconds == inf else round(seconds * 1e3, 3)
