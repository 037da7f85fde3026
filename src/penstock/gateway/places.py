"""The places in the core that durable jobs may have at once, and who gets the next one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from penstock.gateway.job import Job
from penstock.gateway.line import Line


class Places:
    """`able(model)` says whether some engine serves the model at present."""

    __slots__ = ("_able", "_batched", "_in_batch", "_models", "_most", "_share", "_singles", "resting", "running")

    def __init__(self, most: int, able: Callable[[str], bool]) -> None:
        self.running: dict[str, Job] = {}
        """Jobs that have a place."""
        self.resting: set[str] = set()
        """Tenants whose limits leave no room at present."""
        self._most, self._able = most, able
        self._share = max(1, most - most // 4)
        """Places that batches may have, and any model that no engine serves."""
        self._singles, self._batched = Line(), Line()
        self._models: Counter[str] = Counter()
        self._in_batch = 0

    def put(self, job: Job) -> None:
        """It waits for a place."""
        self._line(job).put(job)

    def drop(self, job: Job) -> None:
        """It ended while it waited."""
        self._line(job).drop(job)

    def next(self) -> Job | None:
        """The job that gets a place now, if one is free. A quarter is kept for jobs that are in no batch."""
        if len(self.running) >= self._most:
            return None
        job = self._singles.take(self._may)
        if job is None and self._in_batch < self._share:
            job = self._batched.take(self._may)
        if job is not None:
            job.running = True
            self.running[job.id] = job
            self._models[job.model] += 1
            self._in_batch += job.batch is not None
        return job

    def free(self, job: Job) -> bool:
        """It ended; whether it had a place."""
        if self.running.pop(job.id, None) is None:
            return False
        self._models[job.model] -= 1
        if not self._models[job.model]:
            del self._models[job.model]
        self._in_batch -= job.batch is not None
        return True

    def put_back(self, job: Job) -> None:
        """It had a place and cannot use it yet."""
        if self.free(job):
            job.running = False
            self._line(job).put_back(job)

    def ahead(self, job: Job) -> int:
        """About how many get a place before it, itself counted."""
        return self._line(job).place(job)

    def _line(self, job: Job) -> Line:
        return self._batched if job.batch else self._singles

    def _may(self, job: Job) -> bool:
        """A model that no engine serves must not take all places: other models' jobs could run."""
        return job.tenant not in self.resting and (self._models[job.model] < self._share or self._able(job.model))
