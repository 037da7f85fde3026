"""Who may ask: names a browser was really sent to, pages of our own, holders of the key.

A page from elsewhere that had its name point at this host (DNS rebinding) still sends its own name in Host: it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from hmac import compare_digest

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.wire.openai import error

OPEN = frozenset({"/health"})
"""Paths that need no key: a supervisor asks them."""
HEADERS = {
    "content-security-policy": "default-src 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def refusal(status: int, code: str, message: str) -> Response:
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return Response(error(status, code, message), status, headers, "application/json")


class Guard:
    """`hosts` are the names accepted in Host, with or without port; none accepts every name. `origins` are other sites allowed."""

    def __init__(self, app: ASGIApp, *, key: str | None, hosts: Iterable[str], origins: Iterable[str]) -> None:
        self.app = app
        self.hosts, self.origins = frozenset(host.lower() for host in hosts), frozenset(origins)
        self._digest = None if key is None else sha256(key.encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        answer = self._refusal(scope["path"], Headers(scope=scope)) or self.app
        await answer(scope, receive, send_marked)

    def _refusal(self, path: str, headers: Headers) -> Response | None:
        host = headers.get("host", "").lower()
        if self.hosts and host not in self.hosts and _without_port(host) not in self.hosts:
            return refusal(403, "host_not_allowed", "This name is not served here; add it to admin.hosts.")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host and origin not in self.origins:
            return refusal(403, "origin_not_allowed", "Pages of this origin may not ask; add it to admin.cors.")
        if path not in OPEN and not self._knows(headers.get("authorization", "")):
            return refusal(401, "invalid_api_key", "Send the admin key as 'Authorization: Bearer KEY'.")
        return None

    def _knows(self, authorization: str) -> bool:
        scheme, _, key = authorization.partition(" ")
        given = sha256(key.strip().encode()).digest()
        return self._digest is None or (compare_digest(given, self._digest) and scheme.lower() == "bearer")


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
