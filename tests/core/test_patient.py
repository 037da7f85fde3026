"""Durable jobs in the core: no deadline, no end to their patience, and never above their cap."""

from __future__ import annotations

import msgspec
from tests.playbook import NOTHING, Play, build, call, forward

from penstock.config import Class, Node
from penstock.events import Arrived, Finished, NodeLost, NodeSeen, Tick
from penstock.facts import Request, Signals

TIGHT = (Class(name="tight", priority=4, ttft_ms=1.0, total_ms=2.0),)


def job(id: int, max_priority: int = 5) -> Request:
    return msgspec.structs.replace(call(id), patient=True, max_priority=max_priority)


def one_slot() -> Node:
    return Node(name="a", url="http://127.0.0.1:9", max_running=1)


def test_a_job_waits_past_every_deadline() -> None:
    play = Play(build(one_slot(), rules=TIGHT))
    play >> Arrived(job(1)) << forward(1, "a")
    play >> Arrived(job(2)) << NOTHING
    play.at(10_000.0) >> Tick() << NOTHING
    play >> Finished(1) << forward(2, "a")


def test_a_job_waits_while_no_node_is_up() -> None:
    play = Play(build(one_slot(), rules=TIGHT))
    play >> NodeLost("a") << NOTHING
    play >> Arrived(job(1)) << NOTHING
    play.at(10_000.0) >> Tick() << NOTHING
    play >> NodeSeen("a", Signals()) << forward(1, "a")


def test_a_jobs_priority_is_capped() -> None:
    play = Play(build(one_slot(), rules=(Class(name="all", priority=4),)))
    play >> Arrived(job(1)) << forward(1, "a")
    play >> Arrived(job(2, max_priority=1)) << NOTHING
    play >> Arrived(job(3)) << NOTHING
    play >> Finished(1) << forward(3, "a")
    play >> Finished(3) << forward(2, "a")
