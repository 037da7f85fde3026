"""`penstock check`: is this configuration good, and what does it say."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.errors import ConfigError

if TYPE_CHECKING:
    from penstock.config import Class, Config, Key, KeyLimit, Listen, Node, Pool


def check(
    file: Annotated[Path, typer.Argument(help="The configuration, in YAML.")],
    request: Annotated[
        str | None, typer.Option("--request", metavar="FILE", help="A request in JSON, `-` for stdin: say which rule it meets, and why.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --request: print it as JSON.")] = False,
) -> None:
    """Check a configuration file and say in words what it means, or what it makes of a request.

    A request is the JSON body of a call, or {"headers": {...}, "key": "TENANT", "route": "chat", "body": {...}}.
    """
    from penstock.gateway import settings

    config = settings.load(file)
    if request is not None:
        _show(config, request, as_json)
        return
    if as_json:
        raise ConfigError("--json needs --request FILE")
    for line in describe(config):
        print(line)
    print(f"{file}: good")


def _show(config: Config, name: str, as_json: bool) -> None:
    import msgspec

    from penstock.cli import walk as told
    from penstock.gateway import walk

    walked = walk.walk(config, _read(name, walk.MAX_BYTES), "stdin" if name == "-" else name)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(told.document(walked)), indent=2).decode())
    else:
        print("\n".join(told.lines(walked)))


def _read(name: str, most: int) -> bytes:
    try:
        if name == "-":
            data = sys.stdin.buffer.read(most + 1)
        else:
            with open(name, "rb") as stream:
                data = stream.read(most + 1)
    except OSError as error:
        raise ConfigError(error.strerror or str(error), file=name) from None
    if len(data) > most:
        raise ConfigError(f"larger than {most} bytes", file=name)
    return data


def describe(config: Config) -> Iterator[str]:
    """What the configuration means, in a few lines for a person."""
    keys = f"keys of {', '.join(key.name for key in config.keys)}" if config.keys else "no key needed"
    yield f"API      {_url(config.listen)}  ({keys})"
    for key in config.keys:
        if rights := _rights(key):
            yield f"key      {key.name}: {'; '.join(rights)}"
    yield f"admin    {_url(config.admin)}  ({'key in ' + config.admin_key_env if config.admin_key_env else 'no key needed'})"
    for node in config.nodes:
        yield f"node     {_node(node)}"
    if not config.nodes:
        yield "node     none: `penstock up` starts demo engines, `penstock gateway` answers 503"
    from penstock.config import PoolWhen

    for pool in config.pools:
        yield f"pool     {_pool(pool, config)}"
    if config.pools and all(pool.models or pool.when != PoolWhen() for pool in config.pools):
        yield "pool     none: what meets no rule runs on all nodes of the pools that name its model; where none does, on all that have it"
    for alias, model in config.aliases.items():
        yield f"alias    {alias} means {model}"
    for one in config.classes:
        yield f"class    {_class(one)}"
    if not config.classes:
        yield "class    none: nothing has a deadline, and nothing is refused for time"
    yield f"ladder   {', '.join(config.ladder)}"
    for model, smaller in config.smaller.items():
        yield f"smaller  {smaller} in place of {model}"
    scores = ", ".join(f"{name} x{weight:g}" for name, weight in config.policy.score.items())
    yield f"policy   order {config.policy.order}, admit {config.policy.admit}, score {scores}, pick {config.policy.pick}"


def _url(listen: Listen) -> str:
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    return f"{'https' if listen.tls else 'http'}://{host}:{listen.port}"


def _node(node: Node) -> str:
    facts = [", ".join(node.models) or "models as its /v1/models says"]
    if node.max_running is not None:
        facts.append(f"at most {node.max_running} running")
    if node.kv_tokens is not None:
        facts.append(f"{node.kv_tokens:,} KV tokens")
    if node.profile is not None:
        facts.append(f"profile {node.profile}")
    if node.key_env is not None:
        facts.append(f"key in {node.key_env}")
    return f"{node.name} {node.url}  ({'; '.join(facts)})"


def _rights(key: Key) -> list[str]:
    """What a key may and may not, where it differs from any other."""
    rights = []
    if key.max_priority < 5:
        rights.append(f"priority at most {key.max_priority}")
    if key.classes:
        rights.append(f"may ask for {', '.join(key.classes)}")
    rights += [_limit(limit) for limit in key.limits]
    if key.concurrency is not None:
        rights.append(f"{key.concurrency} requests at once")
    return rights


def _limit(limit: KeyLimit) -> str:
    for name, unit in (("requests", "requests"), ("tokens", "tokens"), ("cost", "of cost")):
        if (most := getattr(limit, name)) is not None:
            return f"{most:,} {unit} in {limit.window_s:g} s"
    return ""


def _pool(pool: Pool, config: Config) -> str:
    from penstock.config import Discovery
    from penstock.core.condition import conditions
    from penstock.core.members import Members

    when = [_condition(condition.of, condition.wants) for condition in conditions(pool.when)]
    if pool.when.task is not None:
        when.insert(0, f"class {pool.when.task}")
    nodes = [node.name for node in config.nodes if Members(pool).has(node)]
    labels = " and ".join(f"{name}: {value}" for name, value in pool.labels.items())
    found = config.discovery != Discovery()
    facts = [f"on {', '.join(nodes) or 'no node so far'}{f', and what is found with {labels}' if labels and found else ''}"]
    if pool.models:
        facts.append(f"models {', '.join(pool.models)}")
    if pool.fallback is not None:
        facts.append(f"falls back on {pool.fallback}")
    return f"{pool.name}: {' and '.join(when) or 'everything'}  ({'; '.join(facts)})"


def _class(one: Class) -> str:
    from penstock.core.condition import conditions

    when = [_condition(condition.of, condition.wants) for condition in conditions(one.when)]
    promises = [f"priority {one.priority}"]
    if one.ttft_ms is not None:
        growth = f" + {one.ttft_ms_per_1k:g} per 1,000 prompt tokens" if one.ttft_ms_per_1k else ""
        promises.append(f"first token within {one.ttft_ms:g} ms{growth}")
    if one.tpot_ms is not None:
        promises.append(f"{one.tpot_ms:g} ms between tokens")
    if one.total_ms is not None:
        promises.append(f"whole answer within {one.total_ms:g} ms")
    if one.timeout is not None:
        promises.append("waits as long as it takes")
    if one.value != 1:
        promises.append(f"value {one.value:g}")
    if one.floor:
        promises.append(f"keeps {one.floor:.4g} of the work")
    if one.ladder:
        promises.append(f"ladder {', '.join(one.ladder)}")
    return f"{one.name}: {' and '.join(when) or 'everything'}  ({'; '.join(promises)})"


def _condition(of: str, wants: str) -> str:
    if of == "stream":
        return "streamed" if wants == "true" else "not streamed"
    return f"{of.replace('_', ' ') if of == 'prompt_tokens' else of} {wants}"
