"""Starts and stops the admin side inside the gateway's running event loop, after the data plane listens.

Its libraries take as long to import as all of the data plane, so they come in only here, on another thread.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING

from penstock.admin.source import Source
from penstock.config import Config
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from penstock.admin.listener import Listener


class AdminServer:
    """The running admin side."""

    def __init__(self, listener: Listener, served: asyncio.Task[None], url: str, port: int) -> None:
        self._listener, self._served = listener, served
        self.url, self.port = url, port

    async def stop(self) -> None:
        """Let answers under way end, for at most a second."""
        self._listener.should_exit = True
        await self._served


async def start(source: Source, environment: Mapping[str, str] = os.environ) -> AdminServer:
    """Serve `source` as `source.config.admin` says. Raises ConfigError for a missing key and an address that is taken."""
    config = source.config
    key, hosts = admin_key(config, environment), allowed_hosts(config)
    bound = _bound(config)
    try:
        listener = await asyncio.to_thread(_assembled, source, key, hosts)
        served = asyncio.create_task(listener.serve([bound]), name="admin")
        ready = asyncio.create_task(listener.ready.wait())
        await asyncio.wait((served, ready), return_when=asyncio.FIRST_COMPLETED)
    except BaseException:
        bound.close()
        raise
    if served.done():
        ready.cancel()
        bound.close()
        raise ConfigError(f"cannot use the certificate: {served.exception()}", key="admin.tls")
    port = bound.getsockname()[1]
    scheme = "https" if config.admin.tls else "http"
    host = f"[{config.admin.host}]" if ":" in config.admin.host else config.admin.host
    return AdminServer(listener, served, f"{scheme}://{host}:{port}", port)


def admin_key(config: Config, environment: Mapping[str, str]) -> str | None:
    """The key callers must send; None when the loopback listener needs none."""
    if config.admin_key_env is None:
        if not is_loopback(config.admin.host):
            raise ConfigError(f"{config.admin.host} can be reached from other machines: set admin_key_env", key="admin.host")
        return None
    key = environment.get(config.admin_key_env, "")
    if not key:
        raise ConfigError(f"environment variable {config.admin_key_env} is not set", key="admin_key_env")
    return key


def allowed_hosts(config: Config) -> frozenset[str]:
    """Names accepted in Host: those configured, or the loopback's own for a loopback listener. Elsewhere the key is the guard."""
    if config.admin.hosts or not is_loopback(config.admin.host):
        return frozenset(config.admin.hosts)
    host = config.admin.host
    return frozenset({"localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host})


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _assembled(source: Source, key: str | None, hosts: frozenset[str]) -> Listener:
    from penstock.admin.app import make
    from penstock.admin.listener import Listener

    return Listener(make(source, key, hosts), source.config.admin.tls)


def _bound(config: Config) -> socket.socket:
    host, port = config.admin.host.strip("[]"), config.admin.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=64)
    except OSError as problem:
        raise ConfigError(f"cannot listen on {host}:{port}: {os.strerror(problem.errno or 0)}", key="admin.port") from None
