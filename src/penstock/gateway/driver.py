"""Drives the core in real time: events in from sockets and the clock, its actions out to callers and engines."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from math import inf

from penstock import config
from penstock.config import Limits
from penstock.core import Core
from penstock.events import Arrived, Cancelled, Divert, Event, Finished, FirstToken, Forward, Hedge, Progress, Recall, Reject, Tick
from penstock.facts import Failure, Route
from penstock.gateway import resume
from penstock.gateway.asked import NOTHING, Asked, request
from penstock.gateway.auth import Tenant
from penstock.gateway.cache import Cache
from penstock.gateway.call import Call
from penstock.gateway.claim import Claim
from penstock.gateway.emitted import Room
from penstock.gateway.journal import Journal
from penstock.gateway.node import Node
from penstock.gateway.reasoning import Reasoning
from penstock.http1 import Exchange
from penstock.metrics.ledger import Ledger
from penstock.wire import openai

TICK_S = 0.001
"""The event loop's timers count milliseconds; armed this much late, one never fires before its deadline for nothing."""
REPORT_S = 1.0
TICKET = "ticket"


class Driver:
    """Owns the core's clock and every call in flight."""

    __slots__ = (
        "_armed", "_busy", "_events", "_loop", "_reported", "_reporter", "_timer", "cache", "calls", "core", "journal", "ledger", "limits",
        "nodes", "reasoning", "room", "takers", "ticketed",
    )  # fmt: skip

    def __init__(self, core: Core, nodes: Mapping[str, Node], limits: Limits, ledger: Ledger, journal: Journal | None = None) -> None:
        self.core, self.nodes, self.limits = core, nodes, limits
        self.ledger, self.journal = ledger, journal
        self.reasoning = Reasoning(config.Reasoning())
        """What is done about thoughts."""
        self.calls: dict[int, Call] = {}
        """In order of arrival."""
        self.cache: Cache | None = None
        """Where answers are kept, if any ladder has that rung."""
        self.room = Room()
        """For what may have to be gone on with."""
        self.ticketed = False
        """Some ladder has the rung `ticket`."""
        self.takers: dict[str, Callable[[Call], int | None]] = {}
        """Rung -> who takes what the core diverts there; the status it answered with, None for 200."""
        self._events: deque[Event] = deque()
        self._busy = False
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._armed = inf
        self._reported = time.monotonic()
        self._reporter = self._loop.call_later(REPORT_S, self._report)

    # --- what callers do

    def arrive(
        self,
        exchange: Exchange,
        route: Route,
        ask: openai.Call,
        tenant: Tenant,
        id: int,
        head: bytes,
        asked: Asked = NOTHING,
        claim: Claim | None = None,
    ) -> None:
        """A call has been read and authorised; `id` is its own, `head` the header lines of any answer to it."""
        now = time.monotonic()
        call = self.calls[id] = Call(self, exchange, route, ask, id, head, now, claim)
        call.tenant = tenant.name
        exchange.on_cancel = call.left
        cached = self.cache is not None and self.cache.meet(call, tenant)
        self.handle(Arrived(request(id, route, ask, tenant, asked, cached, self.ticketed and TICKET in self.takers)), now)

    def divert(self, call: Call, action: Divert) -> None:
        """The core is done with a call: who takes it gives its caller the answer. No engine's work is charged for it."""
        call.climb(action.rungs)
        if not call.exchange.started:
            call.head, call.served = call.head + call.served, b""
        status = self.takers[action.rung](call)
        self._drop(call, Finished(call.id, status or 200, 0, 0, 0))

    def cancelled(self, call: Call) -> None:
        """The caller left: its engine is told within this callback."""
        call.stop()
        self._drop(call, None)
        self.handle(Cancelled(call.id))

    # --- what engines do

    def first_token(self, call: Call) -> None:
        call.first = time.monotonic()
        call.counted = call.joined + 1
        self.handle(FirstToken(call.id))

    def decided(self, call: Call) -> None:
        """Of two engines one has shown something."""
        assert call.node is not None
        self.handle(FirstToken(call.id, call.node.config.name))

    def finished(self, call: Call, event: Finished) -> None:
        self._drop(call, event)
        self.handle(event)

    def failed(self, call: Call, failure: Failure) -> None:
        self._settle(call, time.monotonic())
        call.first = -1.0
        if call.flowing:
            call.fed = time.monotonic()
        self.handle(resume.failed(call, failure))

    # --- the core

    def handle(self, event: Event, now: float | None = None) -> None:
        """Give the core an event and do what it says. What happens meanwhile waits its turn: the core is never re-entered.
        `now` is the clock as just read, where it was.
        """
        if self._busy:
            self._events.append(event)
            return
        self._busy = True
        try:
            self._step(event, time.monotonic() if now is None else now)
            while self._events:
                self._step(self._events.popleft(), time.monotonic())
        finally:
            self._busy = False
        deadline = self.core.deadline
        if deadline < self._armed:
            self._arm(deadline)

    def _step(self, event: Event, now: float) -> None:
        actions = self.core.handle(event, now)
        self.ledger.observe(event, actions, now)
        if self.journal is not None:
            self.journal.write(now, event, actions)
        for action in actions:
            call = self.calls.get(action.id)
            if call is None:
                # Its caller has left; the event that tells the core is waiting its turn, or was this one.
                continue
            if type(action) is Forward:
                if not call.flowing:
                    call.send(self.nodes[action.node], now, action)
                else:
                    call.go_on(self.nodes[action.node])
            elif type(action) is Reject:
                self._drop(call, action)
                call.refuse(action)
            elif type(action) is Recall:
                if not call.recall():
                    self.handle(FirstToken(call.id, action.node))
            elif type(action) is Hedge:
                if not call.hedge(self.nodes[action.node]):
                    self.decided(call)
            elif type(action) is Divert:
                self.divert(call, action)

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed = deadline
        self._timer = self._loop.call_later(max(0.0, deadline - time.monotonic()) + TICK_S, self._tick)

    def _tick(self) -> None:
        self._timer, self._armed = None, inf
        if self.core.deadline <= time.monotonic():
            self.handle(Tick())
        elif self.core.deadline < inf:
            self._arm(self.core.deadline)

    # --- about each second

    def _report(self) -> None:
        """Tell the core how fast each node's streams flow."""
        now = time.monotonic()
        for call in self.calls.values():
            self._settle(call, now)
        self._reported = now
        for name, node in self.nodes.items():
            if node.stream_s > 0:
                event = Progress(name, node.tokens, node.stream_s)
                node.tokens, node.stream_s = 0, 0.0
                self.handle(event)
        if self.journal is not None:
            self.journal.flush()
        self._reporter = self._loop.call_later(REPORT_S, self._report)

    def _settle(self, call: Call, now: float) -> None:
        """Add what a stream has emitted since the last report to its node's count."""
        if call.first >= 0 and call.node is not None and call.relay is not None:
            node, tokens = call.node, call.relay.tokens
            node.tokens += tokens - call.counted
            node.stream_s += now - max(call.first, self._reported)
            call.counted = tokens

    def _drop(self, call: Call, event: Finished | Reject | None) -> None:
        """The call ends: with an answer, with a refusal, or because its caller left."""
        del self.calls[call.id]
        if call.claim is not None:
            call.claim.end(call, event)
        if call.first >= 0:
            self._settle(call, time.monotonic())
        call.close()

    def close(self) -> None:
        """Stop the timers."""
        self._reporter.cancel()
        if self._timer is not None:
            self._timer.cancel()
