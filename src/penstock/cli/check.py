"""`penstock check`: is this configuration good, and what does it say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from penstock.config import Class, Config, Listen, Node, Range


def check(file: Annotated[Path, typer.Argument(help="The configuration, in YAML.")]) -> None:
    """Check a configuration file and say in words what it means."""
    from penstock.gateway import settings

    config = settings.load(file)
    for line in describe(config):
        print(line)
    print(f"{file}: good")


def describe(config: Config) -> Iterator[str]:
    """What the configuration means, in a few lines for a person."""
    keys = f"keys of {', '.join(key.name for key in config.keys)}" if config.keys else "no key needed"
    yield f"API      {_url(config.listen)}  ({keys})"
    yield f"admin    {_url(config.admin)}  ({'key in ' + config.admin_key_env if config.admin_key_env else 'no key needed'})"
    for node in config.nodes:
        yield f"node     {_node(node)}"
    if not config.nodes:
        yield "node     none: `penstock up` starts demo engines, `penstock gateway` answers 503"
    for pool in config.pools:
        yield f"pool     {pool.name}: {', '.join(pool.nodes)}{' for ' + ', '.join(pool.models) if pool.models else ''}"
    for alias, model in config.aliases.items():
        yield f"alias    {alias} means {model}"
    for one in config.classes:
        yield f"class    {_class(one)}"
    if not config.classes:
        yield "class    none: nothing has a deadline, and nothing is refused for time"
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


def _class(one: Class) -> str:
    when = [f"{name} {value}" for name in ("model", "route", "tenant") if (value := getattr(one.when, name)) is not None]
    if one.when.stream is not None:
        when.append("streamed" if one.when.stream else "not streamed")
    if one.when.prompt_tokens is not None:
        when.append(f"prompt tokens {_range(one.when.prompt_tokens)}")
    promises = [f"priority {one.priority}"]
    if one.ttft_ms is not None:
        growth = f" + {one.ttft_ms_per_1k:g} per 1,000 prompt tokens" if one.ttft_ms_per_1k else ""
        promises.append(f"first token within {one.ttft_ms:g} ms{growth}")
    if one.tpot_ms is not None:
        promises.append(f"{one.tpot_ms:g} ms between tokens")
    if one.total_ms is not None:
        promises.append(f"whole answer within {one.total_ms:g} ms")
    return f"{one.name}: {' and '.join(when) or 'everything'}  ({'; '.join(promises)})"


def _range(bounds: Range) -> str:
    signs = (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
    return " and ".join(f"{sign} {value:g}" for name, sign in signs if (value := getattr(bounds, name)) is not None)
