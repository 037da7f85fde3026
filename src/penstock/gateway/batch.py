"""A batch as OpenAI's API shows it, and what a live one is kept by."""

from __future__ import annotations

from typing import Any

import msgspec

WINDOWS = {"24h": 86_400}
ERRORS_SHOWN = 100
METADATA, METADATA_KEY, METADATA_VALUE = 16, 64, 512


class Counts(msgspec.Struct):
    total: int = 0
    completed: int = 0
    failed: int = 0


class Problem(msgspec.Struct):
    """What is wrong with a line of the input; lines count from 1."""

    code: str
    message: str
    param: str | None
    line: int | None


class Problems(msgspec.Struct):
    data: list[Problem]
    object: str = "list"


class Batch(msgspec.Struct, kw_only=True):
    """Field by field the object of OpenAI's API reference."""

    id: str
    object: str = "batch"
    endpoint: str
    errors: Problems | None = None
    input_file_id: str
    completion_window: str = "24h"
    status: str = "validating"
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: Counts = msgspec.field(default_factory=Counts)
    metadata: dict[str, str] | None = None


class Live(msgspec.Struct, eq=False):
    """A batch that has not ended."""

    batch: Batch
    tenant: str
    left: int = 0
    """Jobs that have not ended."""
    output_id: str = ""
    error_id: str = ""
    finalizing: bool = False
    """Somebody is at it."""


class Wanted(msgspec.Struct, gc=False):
    """The body of a call that makes a batch."""

    input_file_id: Any = None
    endpoint: Any = None
    completion_window: Any = None
    metadata: Any = None
