"""What `penstock bench` does once its options make sense: one run, or the search for capacity."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Iterator

import msgspec

from penstock.http1.client import Upstream
from penstock.load.plan import Planned, Shape, poisson, replay
from penstock.load.prompts import Prompts
from penstock.load.report import Json, summary
from penstock.load.run import Run
from penstock.load.search import GOAL, LONG, Search
from penstock.load.slo import Slo
from penstock.load.tally import Kind, Tally
from penstock.load.target import Target, connect, look

LATE_S = 0.05
"""A generator whose 99th percentile of late sends is above this measures itself, not the server."""
_WARM_UP_S = 2.0
_SETTLE_S = 0.5
_CLOSING_TURNS = 200
_UNCONNECTED = 20
"""Calls in a row without a connection after which a step of a search ends early."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The asked load; exactly one of `rows`, `rate`, `callers`, `find` says when calls start."""

    slo: Slo
    shape: Shape
    model: str | None = None
    rows: list[Planned] | None = None
    speedup: float = 1.0
    rate: float | None = None
    callers: int | None = None
    find: bool = False
    duration_s: float | None = None
    timeout_s: float = 600.0
    start_rate: float = 4.0
    """First rate that a search tries."""
    highest_rate: float = 4_000.0
    stream: bool = True
    seed: int = 0

    def step_s(self) -> float:
        return self.duration_s or 8.0

    def load_s(self) -> float:
        """Seconds in which calls start."""
        if self.rows is None:
            return self.duration_s or 30.0
        span_s = (self.rows[-1].at - self.rows[0].at) / self.speedup if self.rows else 0.0
        return span_s if self.duration_s is None else min(self.duration_s, span_s)


class Watch(msgspec.Struct):
    """What a progress display may look at while a load runs."""

    run: Run | None = None
    label: str = ""
    span_s: float = 0.0
    """Seconds in which the run's calls start."""
    _interrupted: bool = False

    def interrupted(self) -> bool:
        return self._interrupted

    def begin(self, run: Run, label: str, span_s: float) -> None:
        self.run, self.label, self.span_s = run, label, span_s

    def interrupt(self) -> None:
        """Ends the load early: what was seen so far is the result."""
        self._interrupted = True
        if self.run is not None:
            self.run.stop()


async def bench(target: Target, plan: Plan, watch: Watch) -> Json:
    """Runs the load and returns the results. Raises Unreachable when the server cannot be used at all, or is gone in a search."""
    upstream = connect(target, plan.timeout_s)
    try:
        model = await look(target, upstream, plan.model)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, watch.interrupt)
        try:
            load = _Load(target, upstream, Prompts(model, stream=plan.stream, seed=plan.seed), plan, watch)
            result = await (load.search() if plan.find else load.once())
        finally:
            loop.remove_signal_handler(signal.SIGINT)
    finally:
        await _close(upstream)
    return {"url": target.origin, "model": model, **result, "interrupted": watch.interrupted()}


async def _close(upstream: Upstream) -> None:
    """Closes the pool and lets its connections go, which takes the loop another turn or two."""
    upstream.close()
    for _ in range(_CLOSING_TURNS):
        if not upstream.connections:
            break
        await asyncio.sleep(0.001)


class _Load:
    """The runs of one command."""

    def __init__(self, target: Target, upstream: Upstream, prompts: Prompts, plan: Plan, watch: Watch) -> None:
        self._target, self._upstream, self._head, self._prompts = target, upstream, target.call_head(), prompts
        self._plan, self._watch = plan, watch
        self._first = 0

    async def once(self) -> Json:
        plan = self._plan
        run = self._run("load", plan.load_s())
        if plan.callers is not None:
            await run.closed(plan.callers, itertools.repeat(plan.shape), plan.load_s())
            return {"mode": "closed", "concurrency": plan.callers, **summary(run.tally, run.started, run.elapsed_s)}
        arrivals: Iterator[Planned]
        if plan.rows is not None:
            arrivals, named = replay(plan.rows, plan.speedup, plan.duration_s), {"mode": "trace", "speedup": plan.speedup}
        else:
            rate = plan.rate or 0.0
            arrivals, named = poisson(rate, plan.load_s(), plan.shape, plan.seed), {"mode": "open", "rate": rate}
        await run.open(arrivals, load_s=plan.load_s())
        return {**named, **summary(run.tally, run.started, run.elapsed_s)}

    async def search(self) -> Json:
        """Steps of a few seconds; a short unmeasured one comes first, so that pools and predictions are warm."""
        plan, search, steps = self._plan, Search(self._plan.start_rate, self._plan.highest_rate), list[Json]()
        await self._step(plan.start_rate, min(_WARM_UP_S, plan.step_s()), "warm-up")
        limited = False
        while not self._watch.interrupted() and not limited and (step := search.following()) is not None:
            length_s = plan.step_s() * (LONG if step.long else 1)
            result = await self._step(step.rate, length_s, f"{step.rate:.3g}/s{', confirming' if step.long else ''}")
            if self._watch.interrupted():
                break
            limited = (result["late_s"]["p99"] or 0.0) > LATE_S
            passed = not limited and search.saw(step, result["goodput"] or 0.0, result["good_per_s"] or 0.0)
            steps.append({"rate": round(step.rate, 4), "passed": passed, "limited_by_generator": limited, **result})
        return {"mode": "find-capacity", "capacity_per_s": round(search.capacity, 4), "goodput_goal": GOAL, "steps": steps}

    async def _step(self, rate: float, duration_s: float, label: str) -> Json:
        """One open-loop run that waits for answers only as long as they can still be good."""
        plan = self._plan
        run = self._run(label, duration_s, patience=_UNCONNECTED)
        longest_s = plan.slo.deadline_s(plan.shape.prompt_tokens) + plan.slo.tpot_s * plan.shape.output_tokens
        run.give_up(duration_s + longest_s + _SETTLE_S)
        await run.open(poisson(rate, duration_s, plan.shape, plan.seed + 1), first=self._first, load_s=duration_s)
        self._first += run.sent
        if run.sent and (run.tally.kinds[Kind.CONNECT] or not run.tally.statuses) and not self._watch.interrupted():
            # Overloaded or gone? What is gone has no capacity that more steps could find.
            await look(self._target, self._upstream, plan.model)
        if run.tally.good < run.tally.ended and not self._watch.interrupted():
            # What was given up is still being stopped.
            await asyncio.sleep(_SETTLE_S)
        return summary(run.tally, run.started, run.elapsed_s)

    def _run(self, label: str, duration_s: float, patience: int | None = None) -> Run:
        tally = Tally(self._plan.slo)
        run = Run(self._upstream, self._head, self._prompts, tally, timeout_s=self._plan.timeout_s, patience=patience)
        self._watch.begin(run, label, duration_s)
        return run
