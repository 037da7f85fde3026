"""What a request asks for: the routes, and everything that is settled before the core hears of a call."""

from __future__ import annotations

import os
import re
import time
from itertools import count
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

from penstock.config import Config
from penstock.core import Core
from penstock.core.account import Shortage
from penstock.errors import CallError
from penstock.facts import Route
from penstock.gateway import limits
from penstock.gateway.asked import Asked, Form
from penstock.gateway.auth import Keyring, Tenant
from penstock.gateway.claim import Claim
from penstock.gateway.driver import Driver
from penstock.gateway.idempotency import Ending, Name, Repeats
from penstock.gateway.prefer import wants_ticket
from penstock.http1 import Exchange
from penstock.wire import openai

if TYPE_CHECKING:
    from penstock.gateway.jobs import Jobs

CALLS = {
    "/v1/chat/completions": Route.CHAT,
    "/v1/completions": Route.COMPLETIONS,
    "/v1/embeddings": Route.EMBEDDINGS,
    "/chat/completions": Route.CHAT,
    "/completions": Route.COMPLETIONS,
    "/embeddings": Route.EMBEDDINGS,
    # DeepSeek's clients use its /beta base URL for prefix completion and fill-in-the-middle.
    "/beta/chat/completions": Route.CHAT,
    "/beta/completions": Route.COMPLETIONS,
}
PAGES = {"/v1/models": "_models", "/models": "_models", "/health": "_health", "/ready": "_ready"}
MODEL_PAGES = ("/v1/models/", "/models/")
"""One model's name follows, slashes and all."""

NO_KEY = "No accepted API key was given. Send one as: Authorization: Bearer KEY"
NAME_SHOWN = 80
NAMES_SHOWN = 8
"""Models that the error for an unknown one lists."""

RETRY_S = 5
"""When to come back, where nothing better is known."""

JSON = b"content-type: application/json\r\n"
EXPOSED = (
    b"x-request-id, x-penstock-request-id, x-penstock-node, x-penstock-queue-ms, x-penstock-served-by, retry-after, retry-after-ms, "
    b"x-should-retry, "
    b"idempotent-replayed, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    b"x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, "
    b"location, preference-applied"
)
_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_HEADER_NAMES = re.compile(r"[A-Za-z0-9-]{1,64}(, ?[A-Za-z0-9-]{1,64}){0,63}")


class Known:
    """What a call's head said, for the next with an equal one."""

    __slots__ = ("asked", "keys", "route", "tenant")

    def __init__(self, keys: int, route: Route, tenant: Tenant, asked: Asked) -> None:
        self.keys = keys
        """Version of the keyring that let its caller in."""
        self.route = route
        self.tenant = tenant
        self.asked = asked


class App:
    """Called by the server with each request."""

    __slots__ = (
        "_aliases",
        "_cors",
        "_form",
        "_ids",
        "_keys",
        "_limits",
        "_lines",
        "_memories",
        "_prefix",
        "core",
        "draining",
        "driver",
        "jobs",
        "repeats",
        "spending",
    )

    def __init__(self, config: Config, keys: Keyring, core: Core, driver: Driver) -> None:
        self.core, self.driver = core, driver
        self._memories = driver.reasoning.memories
        self.draining = False
        self.jobs: Jobs | None = None
        """Durable jobs, where there is a store."""
        self._keys, self._limits, self._aliases = keys, config.limits, config.aliases
        self.spending = limits.Limits(config, keys.tenants())
        self.repeats = Repeats(config.idempotency, driver.calls)
        self._cors = frozenset(config.listen.cors)
        self._form = Form(config.classes, config.pools)
        self._ids = count(1)
        self._prefix = b"ps-" + os.urandom(4).hex().encode() + b"-"
        self._lines = b"x-request-id: %b%%x\r\nx-penstock-request-id: %b%%x\r\n" % (self._prefix, self._prefix)
        """Header lines of a call, up to its number."""

    def __call__(self, exchange: Exchange) -> None:
        id = next(self._ids)
        note = exchange.note
        if note is not None and cast(Known, note).keys == self._keys.version:
            self._call(exchange, cast(Known, note), id, self._lines % (id, id))
        else:
            self._look(exchange, id)

    def _look(self, exchange: Exchange, id: int) -> None:
        """A request whose head is new: what it asks for, and whether its caller may."""
        headers = exchange.headers
        head = self._head(id, headers.get("x-request-id"))
        origin = headers.get("origin")
        if origin is not None:
            head += self._cors_lines(origin)
        route = CALLS.get(exchange.path)
        if route is None or exchange.method != "POST":
            self._page(exchange, head)
            return
        tenant: Tenant | None = None
        try:
            if origin is not None:
                self._check_origin(origin)
            tenant = self._keys.tenant(headers.get("authorization"))
            if tenant is None:
                raise CallError(401, "invalid_api_key", NO_KEY)
            known = Known(self._keys.version, route, tenant, self._form.read(headers, tenant))
        except CallError as error:
            self._turn_away(exchange, head if tenant is None else head + self._left(tenant), error)
            return
        key = headers.get("idempotency-key")
        repeated = None if key is None else (tenant.name, key)
        prefer = headers.get("prefer")
        if prefer is not None and self.jobs is not None and wants_ticket(prefer):
            self._call(exchange, known, id, head, repeated, self.jobs)
            return
        if origin is None and key is None and "x-request-id" not in headers:
            exchange.note = known
        self._call(exchange, known, id, head, repeated)

    def _call(self, exchange: Exchange, known: Known, id: int, head: bytes, repeated: Name | None = None, jobs: Jobs | None = None) -> None:
        route, tenant = known.route, known.tenant
        digest = None
        try:
            if repeated is not None:
                digest = self.repeats.answer(exchange, route, repeated, head + self._left(tenant))
                if digest is None:
                    return
            ask = openai.read(route, exchange.body, self._limits, tenant.salt, self._aliases, self._form.metadata)
            if self._memories.tenants:
                ask = self._restored(exchange, route, ask, tenant)
            if ask.model not in self.core.lanes and not self.core.serves(ask.model):
                raise CallError(404, "model_not_found", self._unknown(ask.asked_model), field="model")
            if jobs is not None:
                jobs.tickets.check_room(1)
        except CallError as error:
            self._turn_away(exchange, head + self._left(tenant), error)
            return
        if jobs is not None:
            # Its key's limits are reserved when it runs.
            shared = None if repeated is None or digest is None else self.repeats.share(exchange, repeated, digest, id, head)
            jobs.accept(exchange if shared is None else shared, route, ask, tenant, known.asked, head, shared)
            return
        claim: Claim | Shortage | None
        spending = self.spending
        limited = spending.limited.get(tenant.name) if spending.limited else None
        if limited is None:
            claim = spending.purse(tenant.name)
        else:
            claim = limited.claim(route, ask)
            if isinstance(claim, Shortage):
                self._keep_out(exchange, head + self._left(tenant), claim)
                return
            head += limited.lines(claim.held.at)
        if repeated is not None and digest is not None:
            exchange = shared = self.repeats.share(exchange, repeated, digest, id, head)
            claim = Ending(self.repeats, shared, claim)
        self.driver.arrive(exchange, route, ask, tenant, id, head, known.asked, claim)

    def _restored(self, exchange: Exchange, route: Route, ask: openai.Call, tenant: Tenant) -> openai.Call:
        """The call with the thoughts that its client dropped. It is read again then: prefix and size are those of what is sent."""
        body = self.driver.reasoning.restored(tenant.name, ask, exchange.body)
        if body is exchange.body or len(body) > self._limits.body_bytes:
            return ask
        return openai.read(route, body, self._limits, tenant.salt, self._aliases, self._form.metadata)

    def _left(self, tenant: Tenant) -> bytes:
        """Header lines that say what a key with limits has left."""
        limited = self.spending.limited.get(tenant.name)
        return b"" if limited is None else limited.lines(time.monotonic())

    def _keep_out(self, exchange: Exchange, head: bytes, shortage: Shortage) -> None:
        self.driver.ledger.turn_away(limits.CODES[shortage.kind])
        lines, body = limits.refusal(shortage, self.spending.jittered(shortage.wait_s))
        exchange.respond(429, lines + head, body)

    def _turn_away(self, exchange: Exchange, head: bytes, error: CallError) -> None:
        self.driver.ledger.turn_away(error.code)
        self.refuse(exchange, head, error)

    def stamp(self) -> bytes:
        """Header lines for answers that the server makes itself."""
        return self._head(next(self._ids), None)

    def next_id(self) -> int:
        return next(self._ids)

    def admit(self, exchange: Exchange) -> Tenant:
        """The tenant that asks for a page which needs a key. Raises CallError."""
        origin = exchange.headers.get("origin")
        if origin is not None:
            self._check_origin(origin)
        tenant = self._keys.tenant(exchange.headers.get("authorization"))
        if tenant is None:
            raise CallError(401, "invalid_api_key", NO_KEY)
        return tenant

    def asked(self, exchange: Exchange, tenant: Tenant) -> Asked:
        """What the head of a call asked for. Raises CallError."""
        return self._form.read(exchange.headers, tenant)

    def knows(self, authorization: str | None) -> bool:
        return self._keys.tenant(authorization) is not None

    def _head(self, id: int, asked: str | None) -> bytes:
        if asked is None or not _TOKEN.fullmatch(asked):
            return self._lines % (id, id)
        return b"x-request-id: %b\r\nx-penstock-request-id: %b%x\r\n" % (asked.encode(), self._prefix, id)

    # --- everything but calls

    def _page(self, exchange: Exchange, head: bytes) -> None:
        page = "_model" if exchange.path.startswith(MODEL_PAGES) else PAGES.get(exchange.path)
        if page is None and exchange.path not in CALLS:
            if self.jobs is not None and self.jobs.page(exchange, head):
                return
            self.refuse(exchange, head, CallError(404, "not_found", f"There is no {exchange.path[:80]!r} here."))
            return
        allowed = "POST" if page is None else "GET, HEAD"
        if exchange.method == "OPTIONS":
            self.preflight(exchange, head, allowed)
        elif page is None or exchange.method not in ("GET", "HEAD"):
            head += b"allow: %b, OPTIONS\r\n" % allowed.encode()
            self.refuse(exchange, head, CallError(405, "method_not_allowed", f"Use {allowed} for {exchange.path}."))
        else:
            getattr(self, page)(exchange, head)

    def _models(self, exchange: Exchange, head: bytes) -> None:
        if self._let_in(exchange, head):
            exchange.respond(200, JSON + head, openai.models(self._names()))

    def _model(self, exchange: Exchange, head: bytes) -> None:
        if not self._let_in(exchange, head):
            return
        name = unquote(exchange.path.partition("/models/")[2])
        if name in self._names():
            exchange.respond(200, JSON + head, openai.model(name))
        else:
            self.refuse(exchange, head, CallError(404, "model_not_found", self._unknown(name[:NAME_SHOWN]), field="model"))

    def _let_in(self, exchange: Exchange, head: bytes) -> bool:
        known = self.knows(exchange.headers.get("authorization"))
        if not known:
            self.refuse(exchange, head, CallError(401, "invalid_api_key", NO_KEY))
        return known

    def _names(self) -> list[str]:
        names = self.core.models()
        return names + [alias for alias, model in self._aliases.items() if model in names]

    def _unknown(self, asked: str) -> str:
        names = self._names()
        known = f" Known: {', '.join(names[:NAMES_SHOWN])}{', and others' if len(names) > NAMES_SHOWN else ''}." if names else ""
        return f"The model {asked!r} does not exist here.{known}"

    def _health(self, exchange: Exchange, head: bytes) -> None:
        """The process lives."""
        exchange.respond(200, JSON + head, b'{"status":"ok"}')

    def _ready(self, exchange: Exchange, head: bytes) -> None:
        """It takes work: some engine is up, and it is not about to stop."""
        if self.draining:
            exchange.respond(503, JSON + head, b'{"status":"draining"}')
        elif not self.core.ready():
            exchange.respond(503, JSON + head, b'{"status":"no engine is up"}')
        else:
            exchange.respond(200, JSON + head, b'{"status":"ready"}')

    def refuse(self, exchange: Exchange, head: bytes, error: CallError) -> None:
        if error.status == 401:
            head += b"www-authenticate: Bearer\r\n"
        elif error.status == 503:
            head += b"retry-after: %d\r\nretry-after-ms: %d\r\nx-should-retry: true\r\n" % (RETRY_S, RETRY_S * 1000)
        elif error.status == 409:
            head += b"retry-after: 1\r\n"
        exchange.respond(error.status, JSON + head, openai.error(error.status, error.code, error.message, error.field))

    # --- browsers

    def _allows(self, origin: str) -> bool:
        return origin in self._cors or "*" in self._cors

    def _check_origin(self, origin: str) -> None:
        """Where no key is needed, a page the user happens to visit must not spend the engines: browsers name it in Origin."""
        if self._keys.open and not self._allows(origin):
            raise CallError(403, "origin_not_allowed", "Pages of this origin may not call here; see listen.cors.")

    def _cors_lines(self, origin: str) -> bytes:
        if not self._allows(origin):
            return b"vary: origin\r\n"
        allowed = b"*" if "*" in self._cors else origin.encode()
        return b"access-control-allow-origin: %b\r\naccess-control-expose-headers: %b\r\nvary: origin\r\n" % (allowed, EXPOSED)

    def preflight(self, exchange: Exchange, head: bytes, allowed: str) -> None:
        origin = exchange.headers.get("origin")
        if origin is not None and self._allows(origin):
            asked = exchange.headers.get("access-control-request-headers", "")
            names = asked if _HEADER_NAMES.fullmatch(asked) else "authorization, content-type"
            head += f"access-control-allow-methods: {allowed}\r\naccess-control-allow-headers: {names}\r\n".encode()
            head += b"access-control-max-age: 600\r\n"
        exchange.respond(204, head + b"allow: %b, OPTIONS\r\n" % allowed.encode(), b"")
