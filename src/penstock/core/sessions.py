"""Which node served a session last: a bounded table, least recently used out first. Tenants are told apart by the keys' salt."""

from __future__ import annotations

from xxhash import xxh3_64_intdigest

from penstock.facts import Request

MOST = 65_536
"""Sessions remembered; an entry costs about 120 bytes, however long the session's name is."""


class Sessions:
    __slots__ = ("most", "nodes")

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.nodes: dict[int, int] = {}
        """Hash of tenant and session -> node number; the last used at the end."""

    def node_of(self, request: Request) -> int:
        """The number of the node that served the request's session last, or -1."""
        return self.nodes.get(key_of(request), -1) if request.session else -1

    def served(self, request: Request, node: int) -> None:
        if not request.session:
            return
        key, nodes = key_of(request), self.nodes
        nodes.pop(key, None)
        nodes[key] = node
        if len(nodes) > self.most:
            del nodes[next(iter(nodes))]

    def forget(self, node: int) -> None:
        """The node lost what it had (it restarted)."""
        self.nodes = {key: held for key, held in self.nodes.items() if held != node}


def key_of(request: Request) -> int:
    return xxh3_64_intdigest(f"{request.tenant} {request.session}".encode(errors="surrogatepass"))
