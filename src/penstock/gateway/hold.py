"""Keeps waiting callers' connections alive: silence at first, so that a refusal keeps its own status, then signs of life.

Streams are committed with 200 and fed comments with their place in the queue; JSON calls are committed and fed newlines only where
`hold.json` says so. One coarse timer serves all calls.
"""

from __future__ import annotations

import asyncio
import time

from penstock import config
from penstock.gateway.call import Call
from penstock.gateway.driver import Driver
from penstock.wire import sse

KEEP_ALIVE = b": keep-alive\n\n"
COARSE_S = 1.0
FINE_S = 0.02


class Hold:
    """Looks over the calls of a driver."""

    def __init__(self, driver: Driver, hold: config.Hold) -> None:
        self._driver, self._hold = driver, hold
        self._every_s = max(FINE_S, min(COARSE_S, hold.quiet_s / 4, hold.interval_s / 4))
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._every_s, self._look)

    def close(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now = time.monotonic()
        quiet_since, fed_before = now - self._hold.quiet_s, now - self._hold.interval_s
        # A sign of life may end a call (a caller found gone), so the dict can change under the loop.
        for call in list(self._driver.calls.values()):
            if call.arrived > quiet_since:
                break
            silent = not call.flowing or call.lost is not None
            if silent and call.fed <= fed_before and (call.ask.stream or self._hold.json):
                call.fed = now
                call.feed(self._sign(call, now))
        self._timer = self._loop.call_later(self._every_s, self._look)

    def _sign(self, call: Call, now: float) -> bytes:
        if not call.ask.stream:
            return b"\n"
        place = self._driver.core.place(call.id, now)
        if place is None:
            return KEEP_ALIVE
        position, eta_s = place
        return sse.queued_comment(position, int(eta_s * 1000))
