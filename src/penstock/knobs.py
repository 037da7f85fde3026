"""Run-time numbers, bounded: what a person or the tuner may turn while requests flow.

A knob is one field: its type's bounds are enforced wherever knobs are read (config file, admin API, journal).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class Knobs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every number the scheduler may be tuned by, with its bounds."""

    depth_s: Annotated[float, Meta(ge=0, le=1e9, description="seconds of predicted prefill a node may have waiting when it is given more; engine queues stay this shallow")] = 0.15
    margin: Annotated[float, Meta(ge=0, le=10, description="share added to a predicted time to first token before it is held against a deadline")] = 0.05
    queue_max: Annotated[int, Meta(ge=1, le=1_000_000, description="requests that may wait for one model")] = 5_000
    queue_ttl_s: Annotated[float, Meta(gt=0, le=86_400, description="longest wait of a request whose class has no deadline")] = 60.0
    kv_share: Annotated[float, Meta(gt=0, le=1e9, description="share of a node's KV memory that reservations may fill")] = 0.95
    kv_sure: Annotated[float, Meta(ge=0, le=10, description="deviations of what a node's running answers may grow by that are kept free of its KV memory; with 3 engines hardly ever run out; with 1 a node that holds few answers holds a quarter more of them, and computes many a second time")] = 3.0
    kv_free: Annotated[float, Meta(ge=0, le=1, description="most of a node's KV memory that is kept free for that where it holds 25 answers or fewer (and more with more, as the root of their number); less fills it better and has its engine compute more answers a second time")] = 0.18
    scan: Annotated[int, Meta(ge=1, le=256, description="queue heads one dispatch pass looks at")] = 8
    sample: Annotated[int, Meta(ge=1, le=1024, description="nodes scored beside prefix holders when a model has more than 16")] = 6
    slower: Annotated[float, Meta(ge=0.01, le=100, description="share by which the others' steps may become longer beside a tenant that floods: it is kept off the nodes which that takes; less isolates them more and costs throughput while it floods; 100 turns it off")] = 0.35
    retry_share: Annotated[float, Meta(ge=0, le=1, description="retries allowed as a share of requests")] = 0.2
    preempt: Annotated[int, Meta(ge=0, le=1, description="1: a request that has shown nothing yet is called back for one of a higher class that would be late otherwise")] = 1
    recalls: Annotated[int, Meta(ge=0, le=100, description="times a request may be called back")] = 5
    hedge_share: Annotated[float, Meta(ge=0, le=1, description="work, as a share of all, that may be done by second tries of overdue requests; 0: none")] = 0.05
    hash_bound: Annotated[float, Meta(ge=1, le=100, description="how far above its share of the load a node may be before hashing passes it over")] = 1.25
    weight_latency: Annotated[float, Meta(ge=0, le=100, description="factor of the weight of the score `latency` in `policy.score`; a score that stands there alone counts whole")] = 1.0
    weight_prefix: Annotated[float, Meta(ge=0, le=100, description="factor of that of `prefix`")] = 1.0
    weight_kv_room: Annotated[float, Meta(ge=0, le=100, description="factor of that of `kv_room`")] = 1.0
    weight_queue: Annotated[float, Meta(ge=0, le=100, description="factor of that of `queue`")] = 1.0
    weight_session: Annotated[float, Meta(ge=0, le=100, description="factor of that of `session`")] = 1.0
    weight_locality: Annotated[float, Meta(ge=0, le=100, description="factor of that of `locality`")] = 1.0
    weight_cost: Annotated[float, Meta(ge=0, le=100, description="factor of that of `cost`")] = 1.0
    slow_factor: Annotated[float, Meta(ge=1, le=1e6, description="a node this much slower than the middle one of its pool is given little work")] = 3.0
    eject_share: Annotated[float, Meta(ge=0, le=1, description="most of a pool that slowness and breakers may take out; beyond, all are used (panic)")] = 0.5
    join_s: Annotated[float, Meta(ge=0, le=3600, description="seconds in which a node that has come, or come back, grows into its full share of work")] = 10.0
    breaker_failures: Annotated[int, Meta(ge=1, le=1000, description="failures in a row that open a node's breaker")] = 5
    breaker_successes: Annotated[int, Meta(ge=1, le=1000, description="successes that close it again")] = 2
    breaker_open_s: Annotated[float, Meta(gt=0, le=3600, description="seconds an open breaker waits before it lets a request try")] = 30.0
