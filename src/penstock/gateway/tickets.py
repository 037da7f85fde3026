"""Durable jobs: taken in, handed to the core a few at a time, run without a caller, ended once.

    202 <- stored <- accept          run -> core -> engine -> answer -> stored -> ended
                                      ^------- back-off <- failed on our side

A job is in the store before its 202 is sent, and its result before it counts as ended. What the process knows beside that can be
lost: the next start reads the jobs that have not ended and hands them to the core again, in their order.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from functools import partial
from math import inf
from typing import TYPE_CHECKING, TypeVar

import msgspec

from penstock.config import Config
from penstock.core.account import Shortage
from penstock.errors import CallError
from penstock.events import Arrived
from penstock.facts import Route
from penstock.gateway import limits, records
from penstock.gateway.absent import TOO_LARGE, Absent
from penstock.gateway.asked import NOTHING, Asked, Form, request
from penstock.gateway.auth import Tenant
from penstock.gateway.call import Call
from penstock.gateway.claim import Claim
from penstock.gateway.driver import Driver
from penstock.gateway.job import Job, job_of, new_id
from penstock.gateway.places import Places
from penstock.gateway.records import JobRow
from penstock.gateway.store import Store
from penstock.wire import openai

if TYPE_CHECKING:
    from sqlite3 import Connection

FAILURES = 8
"""Runs that engines may fail before a job is given up: with the waits between them about two minutes."""
LEAST_REST_S = 0.1
BATCH_PRIORITY = 1
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
"""Between the runs of a job that failed on our side."""
STORE_WAIT_S = 10.0
"""Longest time between tries to write a result that the disk refused."""
SWEEP_S = 30.0
SLICE = 256
"""Jobs handled between two turns of the event loop."""
_BUSY = frozenset({"refused_full", "refused_deadline", "expired", "unavailable"})
"""Refusals that say nothing about the job: it never ran. Only its time limits how often it is tried."""


Result = TypeVar("Result")


class Origin(msgspec.Struct, gc=False, omit_defaults=True):
    """What is stored of a call beside its body: whose it is, and what its head asked for."""

    tenant: str = ""
    salt: int = 0
    max_priority: int = 5
    asked: Asked = NOTHING


_ORIGIN = msgspec.json.Decoder(Origin)


class Tickets:
    """Jobs of one gateway. `next_id` gives numbers that no other call has."""

    def __init__(self, config: Config, driver: Driver, store: Store, spending: limits.Limits, next_id: Callable[[], int]) -> None:
        self.limits = config.tickets
        self.driver, self.core, self.store = driver, driver.core, store
        self.book = driver.ledger.jobs
        self.jobs: dict[str, Job] = {}
        """Those that have not ended, in their order."""
        self.draining = False
        self.on_end: Callable[[Job, str, int | None], None] = _nothing
        """Told of each job of a batch that ended: how, and with which status."""
        self.on_sweep: Callable[[float], None] = lambda now: None
        self._answer_bytes = config.limits.body_bytes
        self._call_limits, self._aliases, self._metadata = config.limits, config.aliases, Form(config.classes, config.pools).metadata
        self._spending, self._next_id = spending, next_id
        self.places = Places(self.limits.running, self._able)
        self.coming = 0
        """Jobs on their way into the store."""
        self._gap_s = 0.0
        """Mean time between ends, while jobs wait in line."""
        self._ended_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: asyncio.Event | None = None
        self._loop = asyncio.get_running_loop()
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Take up the jobs that have not ended."""
        for row in await self.store.run(records.left):
            self.add(job_of(row))
        self._sweeper = self._loop.call_later(self._sweep_s, self._sweep)

    # --- in

    def accept(self, route: Route, ask: openai.Call, body: bytes, origin: Origin, request_id: str) -> Coroutine[None, None, Job]:
        """Store a call as a job. Raises CallError at once when there are too many, and when awaited if it cannot be stored."""
        self.check_room(1)
        now = time.time()
        expires_at = now + self.limits.keep_s
        row = JobRow(new_id("tkt_"), origin.tenant, None, None, "queued", str(route), ask.model, "", request_id, now, expires_at)
        return self._store(row, openai.whole(body) if ask.stream else body, origin)

    def check_room(self, more: int) -> None:
        if len(self.jobs) + self.coming + more > self.limits.most:
            message = f"{len(self.jobs)} jobs have not ended, of {self.limits.most} that may be; try again when some have."
            raise CallError(503, "too_many_tickets", message)

    async def _store(self, row: JobRow, body: bytes, origin: Origin) -> Job:
        facts = msgspec.json.encode(origin)

        def operation(connection: Connection) -> None:
            self.store.make_room(connection)
            records.insert(connection, [(row, facts, body)])

        self.coming += 1
        try:
            await self.store.run(operation)
        except CallError as error:
            self.book.unstored += error.code == "not_stored"
            raise
        finally:
            self.coming -= 1
        job = job_of(row)
        self.add(job)
        return job

    def add(self, job: Job) -> None:
        """A stored job waits for its turn."""
        self.jobs[job.id] = job
        self.places.put(job)
        self.feed()

    # --- to the core

    def feed(self) -> None:
        """Hand jobs on while there are places in the core."""
        while not self.draining and (job := self.places.next()) is not None:
            self._spawn(self._run(job))
        self._count()

    def _able(self, model: str) -> bool:
        lane = self.core.lane(model)
        return lane is not None and any(node.state == "up" for one in lane.every() for node in one.nodes)

    async def _run(self, job: Job) -> None:
        try:
            found = await self.store.run(partial(records.work, id=job.id))
        except CallError:
            self._again(job, b"", counted=False)
            return
        if found is not None and not job.ended and not self.draining:
            self._begin(job, *found)

    def _begin(self, job: Job, stored: bytes, body: bytes) -> None:
        origin = _ORIGIN.decode(stored)
        try:
            ask = openai.read(job.route, body, self._call_limits, origin.salt, self._aliases, self._metadata)
            if (restored := self.driver.reasoning.restored(origin.tenant, ask, body)) is not body:
                ask = openai.read(job.route, restored, self._call_limits, origin.salt, self._aliases, self._metadata)
        except CallError as error:
            # It was good when it came: the configuration has changed since.
            self._finish(job, "failed", error.status, openai.error(error.status, error.code, error.message, error.field))
            return
        if not self.core.serves(ask.model):
            self._again(job, b"", counted=False)
            return
        claim = self._claim(job, ask)
        if isinstance(claim, Shortage):
            self._rest(job, claim)
            return
        id = self._next_id()
        exchange = Absent(body, self._answer_bytes, partial(self._answered, job))
        job.call = self.driver.calls[id] = Call(self.driver, exchange, Route(job.route), ask, id, b"", time.monotonic(), claim)
        job.call.tenant = origin.tenant
        # Never fed: there is nobody whose connection must be kept alive.
        job.call.fed = inf
        tenant = Tenant(origin.tenant, origin.salt, min(origin.max_priority, BATCH_PRIORITY if job.batch else origin.max_priority))
        facts = msgspec.structs.replace(request(id, Route(job.route), ask, tenant, origin.asked), patient=True)
        self.driver.handle(Arrived(facts))
        job.task = self.core.task_class(id) or job.task

    def _claim(self, job: Job, ask: openai.Call) -> Claim | Shortage | None:
        limited = self._spending.limited.get(job.tenant)
        return self._spending.purse(job.tenant) if limited is None else limited.claim(Route(job.route), ask)

    def _rest(self, job: Job, shortage: Shortage) -> None:
        """The limits of its key leave no room now: until they do none of that tenant's jobs is handed on. What never fits is refused."""
        if shortage.wait_s == inf:
            self._finish(job, "failed", 429, limits.refusal(shortage, inf)[1])
            return
        self.places.put_back(job)
        if job.tenant not in self.places.resting:
            self.places.resting.add(job.tenant)
            self._loop.call_later(min(LONGEST_WAIT_S, max(LEAST_REST_S, shortage.wait_s)), self._wake, job.tenant)
        self.feed()

    def _wake(self, tenant: str) -> None:
        self.places.resting.discard(tenant)
        self.feed()

    # --- back from the core

    def _answered(self, job: Job, status: int, body: bytes) -> None:
        job.call = None
        if job.ended:
            return
        if status == TOO_LARGE:
            message = f"The answer is larger than the {self._answer_bytes} bytes that are kept."
            self._finish(job, "failed", 502, openai.error(502, "answer_too_large", message))
        elif 200 <= status < 500:
            self._finish(job, "completed" if status < 400 else "failed", status, body)
        else:
            self._again(job, body, counted=openai.error_code(body) not in _BUSY)

    def _again(self, job: Job, body: bytes, *, counted: bool) -> None:
        """It failed on our side: once more, later; its place in the core stays its own, so failing jobs do not pile up there."""
        job.failures += counted
        if job.failures >= FAILURES:
            self._finish(job, "failed", 503, body or openai.error(503, "failed", "The engines failed it."))
            return
        self.book.retries += 1
        wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(job.tries, 10)) * (0.5 + random.random() / 2)
        job.tries += 1
        self._loop.call_later(wait_s, self._retry, job)

    def _retry(self, job: Job) -> None:
        if not job.ended and not self.draining:
            self._spawn(self._run(job))

    # --- ends

    def cancel(self, job: Job, status: str = "cancelled") -> asyncio.Task[None] | None:
        """End it without an answer; its engine is told at once. None if its end was decided before."""
        if job.ended:
            return None
        self._take_back(job)
        recorded = self._finish(job, status)
        if not job.running:
            self.places.drop(job)
        return recorded

    def _take_back(self, job: Job) -> None:
        if job.call is not None:
            call, job.call = job.call, None
            self.driver.cancelled(call)

    def _finish(self, job: Job, status: str, code: int | None = None, body: bytes | None = None) -> asyncio.Task[None]:
        job.ended = True
        return self._spawn(self._record(job, status, code, body))

    async def _record(self, job: Job, status: str, code: int | None, body: bytes | None) -> None:
        """Write the end until the disk takes it: before that the job keeps its place, and no other is begun in it."""
        now = time.time()
        end = partial(
            records.end, id=job.id, status=status, task=job.task, at=now, expires_at=now + self.limits.keep_s, code=code, result=body
        )
        if await self.persist(end):
            self.book.ended[status] += 1
        self.leave(job, status, code)

    async def persist(self, operation: Callable[[Connection], Result]) -> Result:
        """Write what must be written until the disk takes it. When the process ends before that, the next start does it again."""
        wait_s = FIRST_WAIT_S / 4
        while True:
            try:
                return await self.store.run(operation)
            except CallError:
                self.book.unstored += 1
                if self.draining:
                    raise asyncio.CancelledError from None
                await asyncio.sleep(wait_s)
                wait_s = min(STORE_WAIT_S, wait_s * 2)

    async def end_batch(self, batch: str, status: str) -> None:
        """End what a batch has left, in one transaction but for what runs."""
        mine = [job for job in self.jobs.values() if job.batch == batch]
        waiting = [job for job in mine if not job.running and not job.ended]
        for job in mine:
            if job.running:
                self.cancel(job, status)
        for job in waiting:
            job.ended = True
            self.places.drop(job)
        kept = [job.id for job in mine if job.running]
        ended = await self.persist(partial(records.end_batch, batch=batch, status=status, at=time.time(), kept=kept))
        self.book.ended[status] += len(ended)
        for number, job in enumerate(waiting):
            self.leave(job, status)
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)

    def leave(self, job: Job, status: str, code: int | None = None) -> None:
        """Its end is on the disk: let go of it, and tell whoever waits."""
        job.ended = True
        del self.jobs[job.id]
        if self.places.free(job):
            now = time.monotonic()
            if self._ended_at:
                self._gap_s += (now - self._ended_at - self._gap_s) * (0.05 if self._gap_s else 1.0)
            self._ended_at = now if len(self.jobs) > len(self.places.running) else 0.0
        waiters, job.waiters = job.waiters, []
        for tell in waiters:
            tell()
        if job.batch is not None:
            self.on_end(job, status, code)
        self.feed()
        if self._idle is not None and not self._under_way():
            self._idle.set()

    def _count(self) -> None:
        self.book.running = len(self.places.running)
        self.book.queued = len(self.jobs) - len(self.places.running)

    # --- what is told of a job

    def state(self, job: Job) -> tuple[str, int, int | None]:
        """`queued` or `running`, its place in the queue (0: it runs), and milliseconds until it should begin, where known."""
        call = job.call
        if call is None:
            if job.ended:
                return "running", 0, None
            place = 1 if job.running else self.places.ahead(job)
            return "queued", place, int(place * self._gap_s * 1000) if self._gap_s else None
        found = self.core.place(call.id, time.monotonic()) if call.node is None else None
        if found is None:
            return "running", 0, None
        return "queued", found[0], int(found[1] * 1000)

    # --- about each half minute

    @property
    def _sweep_s(self) -> float:
        return max(0.05, min(SWEEP_S, self.limits.keep_s / 4))

    def _sweep(self) -> None:
        """End what has waited for too long, delete what was kept for long enough."""
        now = time.time()
        self.on_sweep(now)
        for job in [
            job for job in self.jobs.values() if job.expires_at < now and not job.batch and (job.call is None or job.call.node is None)
        ]:
            self.cancel(job, "expired")
        self._spawn(self._forget(now))
        self._sweeper = self._loop.call_later(self._sweep_s, self._sweep)

    async def _forget(self, now: float) -> None:
        try:
            while await self.store.run(partial(records.forget, now=now)):
                pass
        except CallError:
            self.book.unstored += 1

    # --- the end of the process

    async def drain(self, seconds: float) -> None:
        """Let what runs end, for at most so long; the rest stays queued in the store for the next start."""
        self.draining = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for job in self.jobs.values():
            waiters, job.waiters = job.waiters, []
            for tell in waiters:
                tell()
        # What waits for an engine gains nothing by waiting on.
        self._return(lambda call: self.core.place(call.id, time.monotonic()) is not None)
        if self._under_way() and seconds > 0:
            self._idle = asyncio.Event()
            try:
                async with asyncio.timeout(seconds):
                    await self._idle.wait()
            except TimeoutError:
                pass
        self._return(lambda call: True)

    def _return(self, wanted: Callable[[Call], bool]) -> None:
        """Take jobs back from the core: they stay queued in the store, and are no longer ours."""
        for job in list(self.places.running.values()):
            if job.call is not None and not job.ended and wanted(job.call):
                job.ended = True
                self._take_back(job)
                del self.places.running[job.id]

    async def close(self) -> None:
        """After `drain`: results that are on their way to the disk arrive there."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STORE_WAIT_S)
        for task in list(self._tasks):
            task.cancel()

    def _under_way(self) -> bool:
        return any(job.call is not None or job.ended for job in self.places.running.values())

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler({"message": "a durable job failed", "exception": error, "task": task})


def _nothing(job: Job, status: str, code: int | None) -> None:
    """Of no batch."""
