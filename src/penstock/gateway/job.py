"""A durable job while it has not ended."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from penstock.gateway.call import Call
    from penstock.gateway.records import JobRow


class Job(msgspec.Struct, eq=False):
    """Its prompt stays in the store until it runs: a hundred thousand of these fit in memory."""

    id: str
    tenant: str
    route: str
    model: str
    task: str
    """The class it was asked to be of; empty: the rules decide."""
    request_id: str
    created_at: float
    expires_at: float
    batch: str | None = None
    number: int = 0
    """See `line`."""
    running: bool = False
    """It has been taken out of the line."""
    ended: bool = False
    """Its end has been decided, and may be on its way to the disk."""
    call: Call | None = None
    """Its run, while the core has it."""
    failures: int = 0
    tries: int = 0
    waiters: list[Callable[[], None]] = []
    """Called when it has ended."""


def job_of(row: JobRow) -> Job:
    return Job(row.id, row.tenant, row.route, row.model, row.task, row.request_id, row.created_at, row.expires_at, row.batch)


def new_id(prefix: str) -> str:
    """With 128 unguessable bits."""
    return f"{prefix}{os.urandom(16).hex()}"
