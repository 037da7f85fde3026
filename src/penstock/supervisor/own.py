"""What `penstock up --model FILE.gguf` runs: a person's own model, served by llama.cpp, behind the gateway."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from penstock.config import Config, Engine, Limits, Node
from penstock.engine.backends import gguf, llama_cpp
from penstock.errors import ConfigError
from penstock.supervisor.demo import deepseek_names
from penstock.supervisor.service import Service

LOAD_S = 3_600.0
"""A large model on a slow disk takes long."""
FIRST_TOKEN_S = 600.0
"""So does a long prompt on a processor; callers who have gone are noticed anyway."""


_PATHS = ("/", "./", "../", "~")


class Own(msgspec.Struct, frozen=True, kw_only=True):
    """A model file, and how it is to be served."""

    model: gguf.Model
    port: int
    context: int
    """Tokens for a prompt and its answer."""
    parallel: int
    threads: int | None


def named_file(names: list[str]) -> Path | None:
    """The model file among what was given with --model, if that is what was given."""
    files = [name for name in names if name.lower().endswith(".gguf") or name.startswith(_PATHS) or Path(name).is_file()]
    if not files:
        return None
    if len(names) > 1:
        raise ConfigError(f"one model file is served at once, and {files[0]} is one", key="--model")
    return Path(files[0])


def find(file: Path, port: int, context: int | None, parallel: int | None, threads: int | None) -> Own:
    """Read what is to be served. Raises PenstockError where it cannot be."""
    llama_cpp.refuse_absence()
    model = gguf.read(file)
    return Own(
        model=model,
        port=port,
        context=llama_cpp.context(model, context),
        parallel=parallel or llama_cpp.PARALLEL,
        threads=threads,
    )


def with_model(config: Config, own: Own) -> Config:
    """`config` with the model as its node. It has no deadlines unless its classes have: how fast this machine is, nobody knows yet."""
    node = Node(
        name="llama",
        url=f"http://127.0.0.1:{own.port}",
        models=(own.model.name,),
        engine=Engine.LLAMA_CPP,
        max_running=own.parallel,
        kv_tokens=own.context * own.parallel,
    )
    limits = config.limits
    if limits.first_token_s == Limits().first_token_s:
        limits = msgspec.structs.replace(limits, first_token_s=FIRST_TOKEN_S)
    return msgspec.structs.replace(config, nodes=(node,), aliases=config.aliases or _aliases(own.model), limits=limits)


def _aliases(model: gguf.Model) -> dict[str, str]:
    """The file's name does, too; and DeepSeek's names where it is one of theirs."""
    names = {model.stem: model.name} if model.stem != model.name else {}
    return names | (deepseek_names((model.name,)) if "deepseek" in model.name.lower() else {})


def model_service(own: Own) -> Service:
    """The process that serves it."""
    words = ["engine", "--backend", "llama.cpp", "--model", str(own.model.path), "--port", str(own.port)]
    words += ["--context", str(own.context), "--parallel", str(own.parallel)]
    words += ["--threads", str(own.threads)] if own.threads else []
    return Service("engine", (sys.executable, "-m", "penstock", *words), (("127.0.0.1", own.port),), ready_s=LOAD_S)
