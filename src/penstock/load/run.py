"""Sends planned calls at their times and lets callbacks do the rest: no task, no timer and no await per call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from time import monotonic

from penstock.http1.client import Call, Upstream
from penstock.load.answer import Answer
from penstock.load.plan import Planned, Shape
from penstock.load.prompts import Prompts
from penstock.load.tally import Kind, Tally

_BURST = 256
"""Calls sent in one turn of the loop at most, so that answers are read and stamped between them."""
_TIMER_S = 0.001
"""The loop's timers count milliseconds; a shorter wait would spin, and take from the server what it measures."""
_SWEEP_S = 0.5
_PAUSE_S = 0.1
"""How long a caller of the closed loop waits after a failure, or a refusal without Retry-After."""
_LONGEST_PAUSE_S = 1.0


class Run:
    """One load, open or closed; results are in `tally` as they come.

    patience: calls in a row that find no connection after which no more are sent; None goes on through any outage.
    """

    def __init__(
        self, upstream: Upstream, head: bytes, prompts: Prompts, tally: Tally, *, timeout_s: float, patience: int | None = None
    ) -> None:
        self.tally = tally
        self.sent = 0
        self.elapsed_s = 0.0
        """Seconds in which calls were due: the span that rates are taken over."""
        self.sending = False
        self.stopped = False
        """It was ended before its plan was."""
        self._upstream, self._head, self._prompts, self._timeout_s = upstream, head, prompts, timeout_s
        self._patience, self._unconnected = patience, 0
        self._loop = asyncio.get_running_loop()
        self._live: dict[Answer, Call | None] = {}
        """In the order of their starts."""
        self._over = asyncio.Event()
        self.started = monotonic()
        self._on_over: Callable[[Answer], None] = self._ended

    @property
    def live(self) -> int:
        return len(self._live)

    async def open(self, plan: Iterator[Planned], *, load_s: float, first: int = 0) -> None:
        """Sends every planned call at its time, then waits for the answers.

        `load_s` is the span the plan was drawn over, `first` the number of its first prompt.
        """
        self._begin(first)
        self._pump(plan, next(plan, None))
        await self._wait()
        if not self.stopped:
            self.elapsed_s = load_s

    async def closed(self, callers: int, shapes: Iterator[Shape], duration_s: float) -> None:
        """`callers` that each send the next call when the last one ended."""
        self._begin(0)
        self._on_over = lambda answer: self._follow(answer, shapes)
        for _ in range(callers):
            self._next(shapes)
        self._loop.call_later(duration_s, self._stop_sending)
        await self._wait()

    def stop(self) -> None:
        """Ends the run now; calls in flight are cancelled and counted nowhere."""
        self.stopped = self.sending
        self._stop_sending()
        self._drop(lambda answer: True, counted=False)
        self._over.set()

    def give_up(self, wait_s: float) -> None:
        """Counts what has not ended `wait_s` from now as timed out."""
        self._loop.call_later(wait_s, self._drop, lambda answer: True, True)

    def _begin(self, first: int) -> None:
        self._first, self.started, self.sending = first, monotonic(), True
        self._sweep()

    async def _wait(self) -> None:
        self._check_over()
        await self._over.wait()

    def _stop_sending(self) -> None:
        if self.sending:
            self.sending, self.elapsed_s = False, monotonic() - self.started
            self._check_over()

    def _pump(self, plan: Iterator[Planned], following: Planned | None) -> None:
        """Sends what is due; latency counts from the intended start, however late this runs."""
        if not self.sending:
            return
        for _ in range(_BURST):
            if following is None:
                self._stop_sending()
                return
            due = self.started + following.at
            wait_s = due - monotonic()
            if wait_s > 0:
                self._loop.call_later(max(wait_s, _TIMER_S), self._pump, plan, following)
                return
            self._send(following.shape, due)
            following = next(plan, None)
        self._loop.call_soon(self._pump, plan, following)

    def _send(self, shape: Shape, due: float) -> None:
        answer = Answer(self.tally, shape, due, self._on_over)
        body = self._prompts.body(shape, self._first + self.sent)
        self.sent += 1
        self._live[answer] = None
        self.tally.late_s.append(monotonic() - due)
        call = self._upstream.request(self._head, body, answer)
        if answer in self._live:
            self._live[answer] = call

    def _ended(self, answer: Answer) -> None:
        self._live.pop(answer, None)
        self._unconnected = self._unconnected + 1 if answer.kind is Kind.CONNECT else 0
        if self._unconnected == self._patience:
            self._stop_sending()
        self._check_over()

    def _check_over(self) -> None:
        if not self.sending and not self._live:
            self._over.set()

    def _next(self, shapes: Iterator[Shape]) -> None:
        if self.sending:
            self._send(next(shapes), monotonic())

    def _follow(self, answer: Answer, shapes: Iterator[Shape]) -> None:
        """After a good answer a caller goes on at once; after another end it waits, or refusals would make a busy loop."""
        self._ended(answer)
        if answer.kind is Kind.COMPLETED:
            self._loop.call_soon(self._next, shapes)
        else:
            pause_s = min(_LONGEST_PAUSE_S, answer.retry_after_s or _PAUSE_S)
            self._loop.call_later(pause_s, self._next, shapes)

    def _sweep(self) -> None:
        """Ends calls that took longer than the run allows: the oldest are first."""
        oldest = monotonic() - self._timeout_s
        self._drop(lambda answer: answer.due < oldest, counted=True)
        if not self._over.is_set():
            self._loop.call_later(_SWEEP_S, self._sweep)

    def _drop(self, which: Callable[[Answer], bool], counted: bool) -> None:
        while self._live:
            answer, call = next(iter(self._live.items()))
            if not which(answer):
                break
            del self._live[answer]
            if call is not None:
                call.cancel()
            if counted:
                answer.give_up()
        self._check_over()
