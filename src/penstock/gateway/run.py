"""The gateway as a process: event loop, signals, limits of the operating system, garbage collector."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import resource
import signal
import sys
from pathlib import Path

import uvloop

from penstock.admin.server import start as start_admin
from penstock.config import Config
from penstock.errors import ConfigError
from penstock.gateway.service import Gateway

log = logging.getLogger("penstock.gateway")

GC_THRESHOLDS = (50_000, 20, 100)
"""Calls free themselves by counting; what the collector finds is rare, and a pass over everything costs milliseconds."""
KEPT_BYTES, MAPPED_BYTES = 33_554_432, 1_048_576
"""Freed memory that is kept for the next bodies: given back to the kernel each turn, it comes again as page faults, a third of what a
prompt of 32 KB costs. Larger pieces than the second are mapped each by itself, and go back at once."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def run(config: Config, journal: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT. Raises PenstockError for what keeps it from starting."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO, stream=sys.stderr)
    _raise_file_limit()
    _keep_memory()
    uvloop.run(_serve(config, journal))


async def _serve(config: Config, journal: Path | None) -> None:
    stop, hurry = _signals()
    gateway = Gateway(config, journal)
    await gateway.start()
    print(f"API       {gateway.url}/v1", flush=True)
    try:
        admin = await start_admin(gateway)
    except ConfigError:
        await gateway.stop(0.0)
        raise
    print(f"metrics   {admin.url}/metrics\nstate     {admin.url}/admin/state", flush=True)
    if gateway.jobs is not None:
        log.info("tickets in %s; %d had not ended", gateway.jobs.tickets.store.path, len(gateway.jobs.tickets.jobs))
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    await stop.wait()
    log.info(
        "draining %d calls and tickets for at most %g s; a second signal stops at once", len(gateway.driver.calls), config.limits.drain_s
    )
    drain = asyncio.ensure_future(gateway.stop())
    hurried = asyncio.ensure_future(hurry.wait())
    await asyncio.wait((drain, hurried), return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if not drain.done():
        drain.cancel()
        await asyncio.wait((drain,))
        drain = asyncio.ensure_future(gateway.stop(0.0))
    await drain
    await admin.stop()


def _signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Set by the first and by the second signal."""
    stop, hurry = asyncio.Event(), asyncio.Event()

    def signalled() -> None:
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    return stop, hurry


def _raise_file_limit() -> None:
    """Two connections a call: as many files as the system lets us have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        log.warning("could not raise the limit of open files to %d", hard)


def _keep_memory() -> None:
    """Elsewhere than with glibc there is nothing to set."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)
    mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
