"""The admin routes: /metrics, /admin/state, /admin/keys, /health."""

from __future__ import annotations

import time
from itertools import chain

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from penstock import __version__
from penstock.admin.exposition import page
from penstock.admin.guard import Guard, refusal
from penstock.admin.source import Source
from penstock.build import BUILD
from penstock.metrics.books import JobBook
from penstock.metrics.families import booked, process, seen, spent
from penstock.metrics.histogram import Histogram
from penstock.metrics.ledger import Ledger


class Admin:
    """The endpoints over one gateway."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.started = time.monotonic()

    async def metrics(self, request: Request) -> Response:
        """Numbers are gathered between two events of the loop; writing them out is another thread's work."""
        source = self.source
        numbers = chain(
            process(__version__, BUILD, self._uptime_s(), source.host()),
            booked(source.ledger),
            seen(source.snapshot()),
            spent(source.key_use()),
        )
        text, content_type = await run_in_threadpool(page, list(numbers), request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type})

    async def state(self, request: Request) -> Response:
        snapshot, host = self.source.snapshot(), self.source.host()
        shown = {
            "version": __version__,
            "build": BUILD,
            "uptime_s": round(self._uptime_s(), 3),
            "connections": host.connections,
            "http_refusals": host.http_refusals,
            "journal": host.journal,
            "nodes": snapshot.nodes,
            "queues": snapshot.lanes,
            "classes": classes(self.source.ledger),
            "tickets": tickets(self.source.ledger.jobs),
            "knobs": snapshot.knobs,
        }
        return Response(msgspec.json.encode(shown), media_type="application/json")

    async def keys(self, request: Request) -> Response:
        """What each key has used since the start, and of its limits."""
        return Response(
            msgspec.json.encode({"uptime_s": round(self._uptime_s(), 3), "keys": self.source.key_use()}), media_type="application/json"
        )

    async def health(self, request: Request) -> Response:
        return Response(b'{"status":"ok"}', media_type="application/json")

    def _uptime_s(self) -> float:
        return time.monotonic() - self.started


def classes(ledger: Ledger) -> dict[str, object]:
    """Requests and latencies by class, since the start."""
    return {
        name: {
            "arrived": book.arrivals,
            "ended": {str(outcome): count for outcome, count in book.outcomes.items() if count},
            "ttft_s": _quantiles(book.ttft_s),
            "queue_wait_s": _quantiles(book.queue_s),
            "duration_s": _quantiles(book.duration_s),
        }
        for name, book in ledger.classes.items()
    }


def tickets(book: JobBook) -> dict[str, object]:
    """Durable jobs: how many are where now, and how many ended since the start."""
    return {"queued": book.queued, "running": book.running, "ended": book.ended, "retries": book.retries}


def _quantiles(histogram: Histogram) -> dict[str, float]:
    """NaN, written as null, when nothing was seen."""
    return {"p50": histogram.quantile(0.5), "p99": histogram.quantile(0.99)}


async def _refused(request: Request, problem: Exception) -> Response:
    status = problem.status_code if isinstance(problem, HTTPException) else 500
    if status == 404:
        return refusal(404, "not_found", "There are /metrics, /admin/state, /admin/keys and /health here.")
    if status == 405:
        return refusal(405, "method_not_allowed", "Use GET.")
    return refusal(status, "internal_error", "The admin side failed; its log says why.")


def make(source: Source, key: str | None, hosts: frozenset[str]) -> ASGIApp:
    """The ASGI application. `key` None needs no key; no `hosts` accepts every Host."""
    admin = Admin(source)
    pages = {"/metrics": admin.metrics, "/admin/state": admin.state, "/admin/keys": admin.keys, "/health": admin.health}
    routes = [Route(path, page) for path, page in pages.items()]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refused, Exception: _refused})
    return Guard(app, key=key, hosts=hosts, origins=source.config.admin.cors)
