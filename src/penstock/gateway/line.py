"""The order in which durable jobs are handed to the core: round robin over tenants and models, first in first out within each.

The core decides who runs first among the jobs it has; this decides only which of many thousands it has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.gateway.job import Job


class _Row:
    __slots__ = ("dead", "given", "jobs", "put")

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self.put = self.given = 0
        """Jobs ever put in and taken out: a job's place is the difference, without a search."""
        self.dead = 0
        """Of `jobs`, those that were cancelled."""

    def drop_dead(self) -> None:
        self.jobs = deque(job for job in self.jobs if not job.ended)
        self.given += self.dead
        self.dead = 0


class Line:
    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], _Row] = {}

    def put(self, job: Job) -> None:
        row = self._rows.setdefault((job.tenant, job.model), _Row())
        row.put += 1
        job.number = row.put
        row.jobs.append(job)

    def put_back(self, job: Job) -> None:
        """It was taken too early: it goes first again."""
        row = self._rows.setdefault((job.tenant, job.model), _Row())
        row.jobs.appendleft(job)
        job.number = row.given
        row.given -= 1

    def take(self, may: Callable[[Job], bool]) -> Job | None:
        """The next job whose turn it is and which `may` go. Those that have ended are dropped on the way."""
        for key in list(self._rows):
            row = self._rows[key]
            while row.jobs and row.jobs[0].ended:
                row.jobs.popleft()
                row.given += 1
                row.dead -= 1
            if not row.jobs:
                del self._rows[key]
            elif may(row.jobs[0]):
                row.given += 1
                job = row.jobs.popleft()
                del self._rows[key]
                if row.jobs:
                    # To the end: the others come first.
                    self._rows[key] = row
                return job
        return None

    def drop(self, job: Job) -> None:
        """It ended while it waited here. What is dead is cleared away once it is most of a row."""
        row = self._rows.get((job.tenant, job.model))
        if row is not None:
            row.dead += 1
            if row.dead * 2 > len(row.jobs) + 64:
                row.drop_dead()

    def place(self, job: Job) -> int:
        """About how many go before it, itself counted."""
        row = self._rows.get((job.tenant, job.model))
        if row is None:
            return 1
        # Those that were cancelled are taken to be spread evenly.
        alive = 1 - row.dead / max(1, len(row.jobs))
        own = max(1, round((job.number - row.given) * alive))
        return own + sum(min(len(other.jobs), own) for other in self._rows.values() if other is not row)
