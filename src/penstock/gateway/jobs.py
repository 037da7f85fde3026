"""The pages of durable jobs: tickets, files and batches. Origin only for paths that are none of the gateway's fixed ones."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from math import ceil
from typing import TYPE_CHECKING, Any, cast

import msgspec

from penstock.config import Config
from penstock.errors import CallError
from penstock.events import Finished, Reject
from penstock.facts import Outcome, Route
from penstock.gateway import records
from penstock.gateway.asked import Asked
from penstock.gateway.auth import Tenant
from penstock.gateway.batches import Batches
from penstock.gateway.files import Files, parameters
from penstock.gateway.idempotency import Ending, Shared
from penstock.gateway.job import Job
from penstock.gateway.records import JobRow
from penstock.gateway.tickets import Origin, Tickets
from penstock.http1 import Exchange
from penstock.wire import openai, sse
from penstock.wire.batch import embedded

if TYPE_CHECKING:
    from penstock.gateway.app import App
    from penstock.gateway.call import Call

JSON = b"content-type: application/json\r\n"
RETRY_S = 5
"""When to come back after a failure of ours, where nothing better is known."""
LONGEST_WAIT_S = 60.0
"""Of a GET with `wait`: load balancers cut at 60 s of silence."""
END_WAIT_S = 20.0
"""How long a caller who cancels waits for the disk."""
MADE_ONCE = ("/v1/batches", "/batches")
"""Where a POST with an `Idempotency-Key` is run once. A form is never the same twice: its boundary is drawn."""
NO_CALL = 0
RETRY_LEAST_S, RETRY_MOST_S = 1, 60
"""When to ask again for a ticket that has not ended."""

_OWN_ID = re.compile(rb"x-penstock-request-id: ([^\r]*)")

Answer = tuple[int, bytes, bytes]
"""Status, header lines, body."""
Page = Callable[[Exchange, bytes, Tenant, str], Awaitable[Answer | None]]
"""Given the id in the path; None when it has answered itself."""


class Jobs:
    """One gateway's pages of durable jobs."""

    def __init__(self, app: App, config: Config, tickets: Tickets) -> None:
        self.app, self.tickets = app, tickets
        self.files = Files(config, tickets.store)
        self.batches = Batches(config, tickets, self.files)
        app.driver.takers["ticket"] = self.take
        self._file_bytes, self._body_bytes = config.tickets.file_bytes, config.limits.body_bytes
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        pages: dict[str, dict[str, Page]] = {
            r"/tickets/([^/]+)": {"GET": self._ticket, "DELETE": self._cancel},
            r"/files()": {"GET": self.files.index, "POST": self.files.upload},
            r"/files/([^/]+)": {"GET": self.files.show, "DELETE": self.files.delete},
            r"/files/([^/]+)/content": {"GET": self.files.content},
            r"/batches()": {"GET": self.batches.index, "POST": self.batches.create},
            r"/batches/([^/]+)": {"GET": self.batches.show},
            r"/batches/([^/]+)/cancel": {"POST": self.batches.cancel},
        }
        self._pages = [(re.compile(rf"(?:/v1)?{path}"), methods) for path, methods in pages.items()]

    # --- routes

    def page(self, exchange: Exchange, head: bytes) -> bool:
        """Answer if the path is one of ours; whether it is."""
        for pattern, pages in self._pages:
            if (found := pattern.fullmatch(exchange.path)) is not None:
                self._dispatch(exchange, head, pages, found[1])
                return True
        return False

    def _dispatch(self, exchange: Exchange, head: bytes, pages: dict[str, Page], id: str) -> None:
        app, method = self.app, exchange.method
        allowed = ", ".join([*pages, *(["HEAD"] if "GET" in pages else [])])
        if method == "OPTIONS":
            app.preflight(exchange, head, allowed)
            return
        page = pages.get("GET" if method == "HEAD" else method)
        if page is None:
            head += b"allow: %b, OPTIONS\r\n" % allowed.encode()
            app.refuse(exchange, head, CallError(405, "method_not_allowed", f"Use {allowed} for {exchange.path[:80]}."))
            return
        shared = None
        try:
            tenant = app.admit(exchange)
            key = exchange.headers.get("idempotency-key")
            if key is not None and method == "POST" and exchange.path in MADE_ONCE:
                name = (tenant.name, key)
                digest = app.repeats.answer(exchange, "batches", name, head)
                if digest is None:
                    return
                exchange = shared = app.repeats.share(exchange, name, digest, NO_CALL, head)
        except CallError as error:
            app.refuse(exchange, head, error)
            return
        self._spawn(exchange, head, page(exchange, head, tenant, id), shared)

    def body_bytes(self, method: str, path: str, authorization: str | None) -> int:
        """The largest body that a request may have: files are larger than calls, for callers whose key is good."""
        if method == "POST" and path in ("/v1/files", "/files") and self.app.knows(authorization):
            self.files.check_room(0)
            # Beside the file a form holds its boundaries and its small fields.
            return max(self._body_bytes, self._file_bytes + 65_536)
        return self._body_bytes

    # --- answers

    def _spawn(self, exchange: Exchange, head: bytes, page: Awaitable[Answer | None], shared: Shared | None = None) -> None:
        work = self._answer(exchange, head, page)
        task = self._loop.create_task(work if shared is None else self._answer_all(shared, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, exchange: Exchange, head: bytes, page: Awaitable[Answer | None]) -> None:
        try:
            answer = await page
        except CallError as error:
            self._refuse(exchange, head, error)
        except Exception as error:  # The outermost place of a request's task: its caller must not be left waiting.
            self._loop.call_exception_handler({"message": "a page of durable jobs failed", "exception": error})
            self._refuse(exchange, head, CallError(500, "internal_error", "The server failed."))
        else:
            if answer is not None:
                exchange.respond(answer[0], JSON + answer[1] + head, answer[2])

    async def _answer_all(self, shared: Shared, work: Awaitable[None]) -> None:
        """To the first caller and to those who repeated its call; later ones get the same ticket."""
        try:
            await work
        finally:
            self.app.repeats.ended(shared, Finished(0, shared.status) if shared.status else None)

    def _refuse(self, exchange: Exchange, head: bytes, error: CallError) -> None:
        if exchange.started:
            exchange.abort()
            return
        self.app.driver.ledger.turn_away(error.code)
        self.app.refuse(exchange, head, error)

    # --- tickets

    def accept(
        self, exchange: Exchange, route: Route, ask: openai.Call, tenant: Tenant, asked: Asked, head: bytes, shared: Shared | None
    ) -> None:
        """A caller prefers a ticket. `shared` is the exchange if repeats may join it. Raises CallError when there are too many."""
        coming = self.tickets.accept(route, ask, exchange.body, _origin(tenant, asked), _request_id(head))
        self._spawn(exchange, head, self._accepted(exchange, coming, b"preference-applied: respond-async\r\n"), shared)

    def take(self, call: Call) -> None:
        """The ladder's rung: a ticket for a call that the core is done with. Its caller is answered, whatever happens.

        Its key's limits are reserved anew when the ticket runs, and repeats of the call get the same ticket.
        """
        exchange = cast(Exchange, call.exchange)
        claim, shared = call.claim, None
        if isinstance(claim, Ending):
            shared, claim = claim.shared, claim.claim
        call.claim = None
        if claim is not None:
            claim.end(call, Reject(call.id, Outcome.DIVERTED, 0.0))
        if exchange.started and not call.ask.stream:
            # Committed as an answer by newlines that kept it alive: a ticket would be taken for one.
            exchange.abort()
            if shared is not None:
                self.app.repeats.ended(shared, None)
        else:
            self._spawn(exchange, call.head, self._taken(exchange, call, shared), shared)

    async def _taken(self, exchange: Exchange, call: Call, shared: Shared | None) -> Answer | None:
        try:
            tenant = self.app.admit(exchange)
            # The body is still the caller's own, and so is the model, whatever its ladder tried before.
            ask = msgspec.structs.replace(call.ask, model=call.asked_model or call.ask.model)
            coming = self.tickets.accept(
                call.route, ask, exchange.body, _origin(tenant, self.app.asked(exchange, tenant)), _request_id(call.head)
            )
            answer = await self._accepted(exchange, coming, b"")
        except CallError as error:
            if not exchange.started:
                raise
            if shared is not None:
                self.app.repeats.forgo(shared)
            exchange.end(sse.error_event(error.status, error.code, error.message, RETRY_S * 1000))
            return None
        if not exchange.started:
            return answer
        # A stream that was committed while it waited has no status left to say it with.
        message = "Not served yet: it has become a ticket; ask for it at /v1/tickets/ and its id."
        exchange.end(b"data: %b\n\n" % openai.error(503, "ticket", message, None, ticket=msgspec.Raw(answer[2])))
        return None

    async def _accepted(self, exchange: Exchange, coming: Awaitable[Job], lines: bytes) -> Answer:
        job = await coming
        if exchange.closed:
            # Its caller left before the id was told: nobody will ask for it.
            self.tickets.cancel(job)
        shown, retry_s = self._shown(job)
        lines += b"location: /v1/tickets/%b\r\nretry-after: %d\r\n" % (job.id.encode(), retry_s)
        return 202, lines, shown

    async def _ticket(self, exchange: Exchange, head: bytes, tenant: Tenant, id: str) -> Answer:
        job = self._own(tenant, id)
        wait_s = _wait_s(exchange.query)
        if job is not None and wait_s and not self.tickets.draining:
            await _end_of(job, wait_s, exchange)
        return await self._state(tenant, id)

    async def _cancel(self, exchange: Exchange, head: bytes, tenant: Tenant, id: str) -> Answer:
        job = self._own(tenant, id)
        if job is not None:
            # Decided already, or by this: told when it is on the disk.
            recorded = self.tickets.cancel(job)
            if recorded is not None:
                await asyncio.wait((recorded,), timeout=END_WAIT_S)
            elif id in self.tickets.jobs:
                await _end_of(job, END_WAIT_S, exchange)
            if id in self.tickets.jobs:
                raise CallError(503, "not_stored", "The ticket is stopped, but its end could not be stored yet.")
        return await self._state(tenant, id)

    def _own(self, tenant: Tenant, id: str) -> Job | None:
        job = self.tickets.jobs.get(id)
        return job if job is not None and job.tenant == tenant.name and job.batch is None else None

    async def _state(self, tenant: Tenant, id: str) -> Answer:
        job = self._own(tenant, id)
        if job is not None:
            shown, retry_s = self._shown(job)
            return 200, b"retry-after: %d\r\n" % retry_s, shown
        found = await self.tickets.store.run(lambda connection: records.find(connection, id, tenant.name))
        if found is None:
            raise CallError(404, "not_found", f"There is no ticket {id[:80]!r}; tickets are deleted some time after they ended.")
        row, result = found
        return 200, b"", _ticket(row, row.status, 0, None, result)

    def _shown(self, job: Job) -> tuple[bytes, int]:
        """A ticket that has not ended, and when to ask again."""
        status, position, eta_ms = self.tickets.state(job)
        retry_s = RETRY_LEAST_S if eta_ms is None else min(RETRY_MOST_S, max(RETRY_LEAST_S, ceil(eta_ms / 1000)))
        return _ticket(job, status, position, eta_ms), retry_s

    async def start(self) -> None:
        await self.batches.start()
        await self.tickets.start()
        self.batches.resume()

    async def close(self) -> None:
        """After the tickets' drain."""
        await self.batches.close()
        await self.tickets.close()
        for task in list(self._tasks):
            task.cancel()
        await self.tickets.store.close()


def _origin(tenant: Tenant, asked: Asked) -> Origin:
    return Origin(tenant.name, tenant.salt, tenant.max_priority, asked)


def _request_id(head: bytes) -> str:
    found = _OWN_ID.search(head)
    return found[1].decode() if found else ""


def _ticket(job: Job | JobRow, status: str, position: int, eta_ms: int | None, result: bytes | None = None) -> bytes:
    shown: dict[str, Any] = {
        "id": job.id,
        "object": "ticket",
        "status": status,
        "position": position,
        "eta_ms": eta_ms,
        "created_at": int(job.created_at),
        "expires_at": int(job.expires_at),
        "request_id": job.request_id,
        "model": job.model,
        "class": job.task or None,
    }
    if isinstance(job, JobRow):
        shown["ended_at"] = None if job.ended_at is None else int(job.ended_at)
        if job.code is not None:
            shown["result"] = {"status_code": job.code, "body": embedded(result or b"")}
    return msgspec.json.encode(shown)


def _wait_s(query: str) -> float:
    text = parameters(query).get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise CallError(400, "invalid_value", "'wait' must be a number of seconds, 0 or more.", field="wait")
    return min(seconds, LONGEST_WAIT_S)


async def _end_of(job: Job, seconds: float, exchange: Exchange) -> None:
    """Until it ended, the time is over, or its caller left."""
    told = asyncio.get_running_loop().create_future()

    def tell() -> None:
        if not told.done():
            told.set_result(None)

    job.waiters.append(tell)
    exchange.on_cancel = tell
    try:
        await asyncio.wait((told,), timeout=seconds)
    finally:
        exchange.on_cancel = None
        if tell in job.waiters:
            job.waiters.remove(tell)
