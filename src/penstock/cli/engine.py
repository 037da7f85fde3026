"""`penstock engine`: embedded engines to try things with, or a real model on this machine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Backend(StrEnum):
    MODELLED = "modelled"
    LLAMA_CPP = "llama.cpp"


def engine(
    backend: Annotated[
        Backend, typer.Option(help="modelled: timing of measured hardware, text without sense; llama.cpp: the model in a GGUF file.")
    ] = Backend.MODELLED,
    nodes: Annotated[
        int | None, typer.Option(min=1, max=256, help="How many modelled engines, on consecutive ports.  [default: 4]", show_default=False)
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of the first; 0 takes free ones.")] = 9001,
    profile: Annotated[
        str | None, typer.Option(help="Hardware and model they stand for.  [default: mooncake-demo]", metavar="NAME", show_default=False)
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model they serve; repeatable.  [default: deepseek-v3]  For llama.cpp: a GGUF file.",
            metavar="NAME|FILE",
            show_default=False,
        ),
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(min=0.001, max=1_000, help="How much faster than real time.  [default: 1]", metavar="X", show_default=False),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            min=16, help="llama.cpp: tokens for a prompt and its answer.  [default: the model's, at most 8192]", show_default=False
        ),
    ] = None,
    parallel: Annotated[
        int | None, typer.Option(min=1, max=256, help="llama.cpp: answers at once.  [default: 4]", show_default=False)
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=1_024, help="llama.cpp: threads that compute.  [default: one a core, less one]", show_default=False),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    key_env: Annotated[str | None, typer.Option(help="Environment variable with the key callers must send.", metavar="NAME")] = None,
) -> None:
    """Serve a model of an LLM engine in real time (OpenAI's API, vLLM's metrics, deterministic text, faults on demand), or a real model."""
    import os

    from penstock.errors import ConfigError

    key = os.environ.get(key_env, "") if key_env else ""
    if key_env and not key:
        raise ConfigError(f"the environment variable {key_env} is not set", key="--key-env")
    modelled = {"--nodes": nodes, "--profile": profile, "--speed": speed}
    real = {"--context": context, "--parallel": parallel, "--threads": threads}
    foreign = next((name for name, value in (modelled if backend is Backend.LLAMA_CPP else real).items() if value is not None), None)
    if foreign:
        raise ConfigError(f"this is nothing that --backend {backend} knows", key=foreign)
    if backend is Backend.LLAMA_CPP:
        from penstock.engine.backends import llama_cpp

        if model is None or len(model) != 1:
            raise ConfigError("--backend llama.cpp serves one model: name its GGUF file with --model FILE.gguf", key="--model")
        llama_cpp.serve(
            llama_cpp.Options(
                model=Path(model[0]),
                host=host,
                port=port,
                key=key,
                context=context,
                parallel=parallel or llama_cpp.PARALLEL,
                threads=threads,
            )
        )
        return
    from penstock.engine.server import Options, serve

    serve(
        Options(
            nodes=nodes or 4,
            host=host,
            port=port,
            profile=profile or "mooncake-demo",
            models=tuple(model or ("deepseek-v3",)),
            speed=speed or 1.0,
            key=key,
        )
    )
