"""One engine as the driver uses it: connections, prebuilt heads, and what its streams have emitted since the last report."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

from penstock import __version__, config
from penstock.facts import Route
from penstock.http1 import Upstream
from penstock.wire import continuation, dialect

PATHS = {
    Route.CHAT: "/chat/completions",
    Route.COMPLETIONS: "/completions",
    Route.EMBEDDINGS: "/embeddings",
}


class Node:
    """Connections to one engine. Nothing of a caller's head reaches it: the heads are made here, once."""

    __slots__ = ("_key", "config", "dialect", "heads", "health", "lines", "metrics", "models", "stream_s", "tokens", "upstream", "way")

    def __init__(self, node: config.Node, key: str, upstream: Upstream) -> None:
        self.config = node
        self.lines = b"x-penstock-node: %b\r\nx-penstock-queue-ms: " % node.name.encode()
        """Header lines of its answers, up to the number."""
        self.upstream = upstream
        self._key = key
        spoken = dialect.of(node.engine, node.url)
        self.heads = {
            str(route): _head("POST", node.url, spoken.api + path, key, b"content-type: application/json\r\n")
            for route, path in PATHS.items()
        }
        self.models = _head("GET", node.url, spoken.models, key)
        self.way = continuation.way(node.engine)
        """How it goes on with answers that others began."""
        self.speak(spoken)
        self.tokens = 0
        """Emitted by streams after their first, not yet reported."""
        self.stream_s = 0.0
        """Seconds those streams spent on them."""

    def speak(self, spoken: dialect.Dialect) -> None:
        """Ask it for its state as that kind of engine is asked."""
        self.dialect = spoken
        url, key = self.config.url, self._key
        self.health = _head("GET", url, spoken.health, key) if spoken.health else self.models
        self.metrics = tuple(_head("GET", url, path, key) for path in spoken.metrics)


def connect(nodes: tuple[config.Node, ...], limits: config.Limits, key: Callable[[str, str], str]) -> dict[str, Node]:
    """The configured nodes by name. `key(variable, place)` finds an engine's key; raises ConfigError."""
    loop = asyncio.get_running_loop()
    found = {}
    for index, node in enumerate(nodes):
        secret = key(node.key_env, f"nodes[{index}].key_env") if node.key_env else ""
        found[node.name] = Node(node, secret, Upstream(node.url, limits, ca=node.ca, sni=node.sni, loop=loop))
    return found


def _head(method: str, url: str, path: str, key: str, more: bytes = b"") -> bytes:
    parts = urlsplit(url)
    prefix = parts.path.rstrip("/")
    if prefix.endswith("/v1"):
        # A base URL as clients are given it, `https://host/v1`: health and metrics lie beside it, not under it.
        prefix = prefix.removesuffix("/v1")
    lines = f"{method} {prefix}{path} HTTP/1.1\r\nhost: {parts.netloc}\r\nuser-agent: penstock/{__version__}\r\n"
    if key:
        lines += f"authorization: Bearer {key}\r\n"
    return lines.encode("ascii") + more
