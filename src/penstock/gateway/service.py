"""The gateway as a whole: its parts put together, started in order and stopped in order."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from pathlib import Path

from penstock.config import Config
from penstock.core import Core
from penstock.core.ladder import named
from penstock.errors import ConfigError
from penstock.facts import Host, KeyUse, Profile, Snapshot
from penstock.gateway import auth
from penstock.gateway.app import App
from penstock.gateway.cache import Cache
from penstock.gateway.driver import Driver
from penstock.gateway.hold import Hold
from penstock.gateway.home import place
from penstock.gateway.jobs import Jobs
from penstock.gateway.journal import Journal
from penstock.gateway.node import connect
from penstock.gateway.probe import Prober
from penstock.gateway.reasoning import Reasoning
from penstock.gateway.store import MEMORY, Store
from penstock.gateway.tickets import Tickets
from penstock.http1 import Server, server_context
from penstock.journal import Head
from penstock.metrics.ledger import Ledger

log = logging.getLogger("penstock.gateway")

STORE_FILES = 100
"""The store takes new work in while it is smaller than so many of the largest files."""


class Gateway:
    """One data plane. Make it on a running event loop; raises ConfigError for what it cannot work with."""

    def __init__(self, config: Config, journal: Path | None = None, seed: int | None = None) -> None:
        self.config = config
        keys = auth.keyring(config)
        auth.refuse_exposure(config, keys)
        seed = int.from_bytes(os.urandom(6), "big") if seed is None else seed
        profiles = _profiles(config)
        self.core = Core(config, config.knobs, random.Random(seed), profiles)
        self.nodes = connect(config.nodes, config.limits, auth.engine_key)
        self.ledger = Ledger(config, self.core.task_class)
        head = Head(config=config, knobs=config.knobs, seed=seed, profiles=profiles)
        self.journal = None if journal is None else Journal(journal, head)
        self.driver = Driver(self.core, self.nodes, config.limits, self.ledger, self.journal)
        self.driver.reasoning = Reasoning(config.reasoning)
        rungs = named(config)
        self.driver.ticketed = "ticket" in rungs
        if "cache" in rungs:
            self.driver.cache = cache = Cache(config.cache, self.core.allows)
            self.driver.takers["cache"] = cache.take
        self.app = App(config, keys, self.core, self.driver)
        self.server = Server(self.app, config.limits, hosts=config.listen.hosts, stamp=self.app.stamp)
        self.jobs: Jobs | None = None
        """From `start` on."""
        self._hold: Hold | None = None
        self._prober: Prober | None = None
        self.port = 0

    async def start(self) -> None:
        """Open the store, listen, then look after the nodes. Raises ConfigError for a store or an address that cannot be had."""
        listen = self.config.listen
        store = await self._store()
        jobs = self.jobs = self.app.jobs = Jobs(
            self.app, self.config, Tickets(self.config, self.driver, store, self.app.spending, self.app.next_id)
        )
        self.server.larger = jobs.body_bytes
        await jobs.start()
        tls = server_context(listen.tls.cert, listen.tls.key) if listen.tls else None
        try:
            self.port = await self.server.listen(listen.host, listen.port, ssl=tls)
        except OSError as error:
            await jobs.tickets.drain(0.0)
            await jobs.close()
            raise ConfigError(f"cannot listen on {listen.host}:{listen.port}: {os.strerror(error.errno or 0)}", key="listen.port") from None
        self._hold = Hold(self.driver, self.config.hold)
        self._prober = Prober(self.nodes.values(), self.config.limits, self.config.probe_s, self.driver.handle)

    async def _store(self) -> Store:
        """The durable store. Where nobody named a file and no new one can be made in the usual place, a store that ends with the process
        and a warning; a store that is there and cannot be used keeps the gateway from starting: it may hold tickets.
        """
        most, path = STORE_FILES * self.config.tickets.file_bytes, ""
        try:
            path = place(self.config)
            store = Store(path, self.ledger.jobs, most)
            await store.open()
        except ConfigError as error:
            if self.config.tickets.path is not None or os.path.exists(path):
                raise
            log.warning("tickets will end with this process: %s; name a file in tickets.path to keep them", error)
            store = Store(MEMORY, self.ledger.jobs, most)
            await store.open()
        return store

    async def stop(self, drain_s: float | None = None) -> None:
        """Let the calls under way end, for at most `drain_s` (default: `limits.drain_s`) seconds, then stop everything."""
        self.app.draining = True
        seconds = self.config.limits.drain_s if drain_s is None else drain_s
        if self.jobs is None:
            await self.server.drain(seconds)
        else:
            await asyncio.gather(self.jobs.tickets.drain(seconds), self.server.drain(seconds))
            await self.jobs.close()
        for part in (self._prober, self._hold, self.driver):
            if part is not None:
                part.close()
        for node in self.nodes.values():
            node.upstream.close()
        if self.journal is not None:
            await self.journal.close()

    def snapshot(self) -> Snapshot:
        """What the admin side shows."""
        return self.core.snapshot(time.monotonic())

    def host(self) -> Host:
        """What the admin side shows of the process."""
        journal = "off" if self.journal is None else f"failed: {self.journal.failed}" if self.journal.failed else "on"
        return Host(
            connections=self.server.connections,
            http_refusals=dict(self.server.refusals),
            journal=journal,
            repeats=dict(self.app.repeats.counts),
            repeat_bytes=self.app.repeats.bytes,
        )

    def key_use(self) -> tuple[KeyUse, ...]:
        """What the admin side shows of keys: names and numbers, nothing that could be used as one."""
        return self.app.spending.use()

    @property
    def url(self) -> str:
        listen = self.config.listen
        host = f"[{listen.host}]" if ":" in listen.host else listen.host
        return f"{'https' if listen.tls else 'http'}://{host}:{self.port}"


def _profiles(config: Config) -> dict[str, Profile]:
    names = {node.profile for node in config.nodes if node.profile}
    if not names:
        return {}
    from penstock.engine import profiles

    return {name: profiles.load(name) for name in sorted(names)}
