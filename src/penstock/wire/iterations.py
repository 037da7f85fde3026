"""What TensorRT-LLM's /metrics says of its load: a JSON list of what its last iterations were, emptied by reading it.

Telemetry is input: what is not there, or not a number inside sane bounds, is unknown.
"""

from __future__ import annotations

import msgspec

from penstock.facts import Signals
from penstock.wire.prom import COUNT_MAX


class _Cache(msgspec.Struct, gc=False, rename="camel"):
    max_num_blocks: float = 0
    used_num_blocks: float = -1


class _Iteration(msgspec.Struct, rename="camel"):
    num_active_requests: float = -1
    num_queued_requests: float = -1
    kv_cache_stats: _Cache | None = None


_iterations = msgspec.json.Decoder(list[_Iteration])


def read(page: bytes) -> Signals:
    """Signals in such a list: those of its last iteration; none where it is empty, or is something else."""
    try:
        iterations = _iterations.decode(page)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Signals()
    if not iterations:
        return Signals()
    last = iterations[-1]
    cache = last.kv_cache_stats
    usage = cache.used_num_blocks / cache.max_num_blocks if cache is not None and cache.max_num_blocks > 0 else -1.0
    return Signals(_count(last.num_active_requests), _count(last.num_queued_requests), usage if 0 <= usage <= 1 else None)


def _count(value: float) -> int | None:
    return int(value) if 0 <= value <= COUNT_MAX else None
