"""`penstock engine --backend llama.cpp`: llama.cpp's own server over one model file, in this process, until Ctrl-C or SIGTERM.

The server is the package xllamacpp's. It does not drain by itself and answers nothing while it loads: a `Front` before it does.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, NoReturn

import msgspec
import uvloop

from penstock.config import Limits
from penstock.engine.backends import gguf
from penstock.engine.backends.front import Front
from penstock.engine.server import reason, refuse_exposure
from penstock.errors import ConfigError, PenstockError
from penstock.http1 import Server

DRAIN_S = 30.0
CONTEXT = 8_192
"""Tokens for a prompt and its answer, where nobody says how many; fewer where the model was made for fewer."""
PARALLEL = 4
HTTP_THREADS = 64
SAY_S = 2.0
"""Seconds between signs of life while a model loads."""

LATE_S = 1.0
LOG_BYTES = 1 << 20
_LAST = b"exiting due to model loading error"
_CAUSE = re.compile(r"error loading model: (.+)")
_NOISE = re.compile(r"^[\d.]+ [A-Z] |^\w+: ")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve, and where."""

    model: Path
    host: str = "127.0.0.1"
    port: int = 9001
    """0 takes any free one."""
    key: str = ""
    """Bearer key that callers must send; empty for none."""
    context: int | None = None
    """Tokens that a prompt and its answer may have together."""
    parallel: int = PARALLEL
    """Answers at once."""
    threads: int | None = None


def refuse_absence() -> None:
    """Raise PenstockError where xllamacpp is not installed."""
    if find_spec("xllamacpp") is None:
        raise PenstockError("serving a model file needs the extra `llama`: pip install 'penstock[llama]'")


def context(model: gguf.Model, asked: int | None) -> int:
    """Tokens that each answer has room for."""
    return asked or min(model.context or CONTEXT, CONTEXT)


def threads() -> int:
    """Threads that compute, where nobody says how many: one a core, less one that the gateway and the system keep.

    More threads than cores that are free wait for each other in a spin, and all become slow.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = len({_siblings(cpu) for cpu in allowed})
    return max(1, min(cores, _quota() or cores) - 1)


def _siblings(cpu: int) -> str:
    """The core that a logical processor belongs to."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _quota() -> int | None:
    """Whole processors that a container may use, where it is limited."""
    try:
        most, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if most == "max" else max(1, int(most) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return None


def serve(options: Options) -> None:
    """Run until SIGTERM or Ctrl-C, which lets answers under way end, for at most 30 s; a second signal cuts them.

    Raises PenstockError for a model that cannot be served, ConfigError for a place where nobody can listen.
    """
    refuse_absence()
    refuse_exposure(options.host, options.key)
    model = gguf.read(options.model)
    uvloop.run(_serve(options, model))


async def _serve(options: Options, model: gguf.Model) -> None:
    front = Front(options.key)
    server = Server(front.app, Limits())
    signals: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signals.put_nowait, number)
    try:
        port = await server.listen(options.host, options.port)
    except (OSError, OverflowError) as problem:
        raise ConfigError(f"cannot listen on {options.host}:{options.port}: {reason(problem)}", key="--port") from None
    stopped = asyncio.ensure_future(signals.get())
    secret = secrets.token_urlsafe(16)
    loading = asyncio.ensure_future(_load(options, model, secret))
    await asyncio.wait((loading, stopped), return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        # Nothing can interrupt it; nothing is lost with it.
        _leave()
    try:
        llama = loading.result()
    except PenstockError:
        await server.drain(0.0)
        raise
    front.open(llama.listening_address, secret)
    host = f"[{options.host}]" if ":" in options.host else options.host
    _say(f"penstock engine: llama.cpp serves {model.name} on http://{host}:{port}")
    await stopped
    if front.running:
        _say(f"answers to finish: {front.running}, for at most {DRAIN_S:g} s; a second signal stops at once")
    draining = asyncio.ensure_future(server.drain(DRAIN_S))
    hurry = asyncio.ensure_future(signals.get())
    await asyncio.wait((draining, hurry), return_when=asyncio.FIRST_COMPLETED)
    hurry.cancel()
    if not draining.done():
        draining.cancel()
        await asyncio.wait((draining,))
        await server.drain(0.0)
    # Its end would wait for all that is still being computed, though nobody is left to hear it.
    _leave()


def _leave() -> NoReturn:
    sys.stdout.flush()
    os._exit(0)


async def _load(options: Options, model: gguf.Model, secret: str) -> Any:
    """The server, ready. Loading may take minutes: it is another thread's, and there is a line now and then."""
    loop = asyncio.get_running_loop()
    loaded: asyncio.Future[Any] = loop.create_future()

    def settle(how: Callable[[Any], None], what: object) -> None:
        if not loaded.done():
            how(what)

    def work() -> None:
        try:
            made = _server(options, model, secret)
        except PenstockError as problem:
            loop.call_soon_threadsafe(settle, loaded.set_exception, problem)
        else:
            loop.call_soon_threadsafe(settle, loaded.set_result, made)

    began = time.monotonic()
    # Not one of a pool's, which the interpreter would wait for when it is asked to stop.
    threading.Thread(target=work, daemon=True).start()
    while not loaded.done():
        await asyncio.wait((loaded,), timeout=SAY_S)
        if not loaded.done():
            _say(f"loading {model.path.name} ({model.bytes / 1e9:.1f} GB): {time.monotonic() - began:.0f} s")
    return loaded.result()


def _server(options: Options, model: gguf.Model, secret: str) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model.path)
    params.model_alias = {model.name}
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [secret]
    params.n_parallel = options.parallel
    params.n_ctx = context(model, options.context) * options.parallel
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads or threads()
    # Each call that waits for a slot holds a thread; the pages of health and metrics need some beside.
    params.n_threads_http = max(HTTP_THREADS, 4 * options.parallel)
    params.endpoint_metrics = params.endpoint_slots = True
    params.ui = False
    params.cors_origins = ""
    params.verbosity = 1
    with tempfile.TemporaryFile() as log:
        kept = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            return xllamacpp.Server(params)
        except RuntimeError as problem:
            cause = _cause(_all_of(log)) or str(problem)
            raise PenstockError(f"{model.path} ({model.architecture}) cannot be served: {cause}") from None
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _all_of(log: IO[bytes]) -> str:
    """What llama.cpp wrote. Another thread of its writes it, a little later; the last line is always the same."""
    until = time.monotonic() + LATE_S
    while True:
        text = os.pread(log.fileno(), LOG_BYTES, 0)
        if _LAST in text or time.monotonic() > until:
            return text.decode("utf-8", "replace")
        time.sleep(0.005)


def _cause(log: str) -> str:
    """Why llama.cpp could not load a model, from its log: the first error that says more than that it could not."""
    found = _CAUSE.search(log)
    lines = [_NOISE.sub("", line) for line in log.splitlines() if line.strip()]
    return found[1].strip() if found else lines[0] if lines else ""


def _say(line: str) -> None:
    print(line, flush=True)
