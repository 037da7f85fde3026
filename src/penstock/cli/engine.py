"""`penstock engine`: embedded engines to try things with."""

from __future__ import annotations

from typing import Annotated

import typer


def engine(
    nodes: Annotated[int, typer.Option(min=1, max=256, help="How many engines, on consecutive ports.")] = 4,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of the first; 0 takes free ones.")] = 9001,
    profile: Annotated[str, typer.Option(help="Hardware and model they stand for.", metavar="NAME")] = "mooncake-demo",
    model: Annotated[list[str] | None, typer.Option(help="Model they serve; repeatable.  [default: deepseek-v3]", metavar="NAME")] = None,
    speed: Annotated[float, typer.Option(min=0.001, max=1_000, help="How much faster than real time.", metavar="X")] = 1.0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    key_env: Annotated[str | None, typer.Option(help="Environment variable with the key callers must send.", metavar="NAME")] = None,
) -> None:
    """Serve a model of an LLM engine in real time: OpenAI's API, vLLM's metrics, deterministic text, faults on demand."""
    import os

    from penstock.engine.server import Options, serve
    from penstock.errors import ConfigError

    key = os.environ.get(key_env, "") if key_env else ""
    if key_env and not key:
        raise ConfigError(f"the environment variable {key_env} is not set", key="--key-env")
    serve(Options(nodes=nodes, host=host, port=port, profile=profile, models=tuple(model or ("deepseek-v3",)), speed=speed, key=key))
