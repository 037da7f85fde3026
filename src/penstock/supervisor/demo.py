"""What `penstock up` runs: embedded engines when no nodes are configured, and the gateway."""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from penstock.config import Class, Config, Engine, Listen, Node, Range, When
from penstock.supervisor.service import Service

_PENSTOCK = (sys.executable, "-m", "penstock")

DEMO_CLASSES = (
    Class(name="interactive", when=When(prompt_tokens=Range(le=8_000)), ttft_ms=2_000.0, tpot_ms=100.0),
    Class(name="long", ttft_ms=2_000.0, ttft_ms_per_1k=250.0, tpot_ms=100.0),
)
"""An answer begins within 2 s, behind a long prompt within 0.25 s more for each 1,000 tokens, or the caller hears when to come back."""

DEMO_MODELS = ("deepseek-v3", "deepseek-r1")
_DEEPSEEK = {"deepseek-chat": "*", "deepseek-reasoner": "*r1*"}
"""The names that DeepSeek's own API has, and which of the demo's models answers to each: the first that matches."""


def with_ports(config: Config, port: int | None, admin_port: int | None) -> Config:
    """`config` with the ports that were asked for on the command line."""
    listen, admin = config.listen, config.admin
    if port is not None:
        listen = msgspec.structs.replace(listen, port=port)
    if admin_port is not None:
        admin = msgspec.structs.replace(admin, port=admin_port)
    return msgspec.structs.replace(config, listen=listen, admin=admin)


def with_engines(config: Config, engines: int, first_port: int, models: tuple[str, ...], profile: str) -> Config:
    """`config` with the embedded engines as its nodes, and the demo's class and aliases where it has none of its own."""
    nodes = tuple(
        Node(name=f"engine-{index + 1}", url=f"http://127.0.0.1:{first_port + index}", models=models, profile=profile, engine=Engine.VLLM)
        for index in range(engines)
    )
    named = deepseek_names(models)
    return msgspec.structs.replace(config, nodes=nodes, classes=config.classes or DEMO_CLASSES, aliases=config.aliases or named)


def deepseek_names(models: tuple[str, ...]) -> dict[str, str]:
    """The names that DeepSeek's own API has, for these models."""
    return {alias: fits[0] for alias, pattern in _DEEPSEEK.items() if (fits := _matching(models, pattern)) and alias not in models}


def _matching(models: tuple[str, ...], pattern: str) -> list[str]:
    return [model for model in models if fnmatchcase(model.lower(), pattern)]


def engine_service(engines: int, first_port: int, models: tuple[str, ...], profile: str, speed: float) -> Service:
    """One process that serves all embedded engines."""
    arguments = (
        "engine",
        "--nodes",
        str(engines),
        "--port",
        str(first_port),
        *(word for model in models for word in ("--model", model)),
        "--profile",
        profile,
        "--speed",
        str(speed),
    )
    return Service("engine", (*_PENSTOCK, *arguments), (("127.0.0.1", first_port + engines - 1),), stop_s=2.0)


def gateway_service(config: Config, file: Path, journal: Path | None, stop_s: float = 5.0) -> Service:
    """The gateway, which reads `config` from `file`."""
    arguments = ("gateway", "--config", str(file), *(("--journal", str(journal)) if journal is not None else ()))
    places = tuple((listen.host, listen.port) for listen in (config.listen, config.admin) if listen.port)
    return Service("gateway", (*_PENSTOCK, *arguments), places, stop_s)


def as_json(config: Config) -> bytes:
    """`config` as a configuration file, JSON being YAML."""
    values = msgspec.to_builtins(config)
    for name, listen in (("listen", config.listen), ("admin", config.admin)):
        # Defaults are left out, but the two listeners' default ports differ.
        values[name] = {**msgspec.to_builtins(listen), "port": listen.port}
    return msgspec.json.encode(values)


def url(listen: Listen) -> str:
    """Where a listener is found from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)
    return f"{'https' if listen.tls else 'http'}://{f'[{host}]' if ':' in host else host}:{listen.port}"
