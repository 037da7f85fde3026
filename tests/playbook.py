"""Tests of the core that read like a conversation: `Play(core) >> event << action`.

`>>` sends an event at the playbook's time, `<<` expects the next of the actions that answered it. Numbers that explain an
action (`why`, `retry_after_s`), and rungs taken, are compared only where the expected action gives them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec

from penstock.config import Class, Config, Node, Policy
from penstock.core import Core
from penstock.core.classify import TaskClass
from penstock.core.flight import Flight
from penstock.core.lane import Lane
from penstock.events import Action, Divert, Event, Forward, Hedge, Reject
from penstock.facts import Outcome, Request
from penstock.knobs import Knobs

NOTHING = object()


def forward(id: int, node: str) -> Forward:
    return Forward(id, node)


def divert(id: int, *rungs: str) -> Divert:
    return Divert(id, rungs[-1], rungs)


def reject(id: int, outcome: Outcome) -> Reject:
    return Reject(id, outcome, -1.0)


class Play:
    def __init__(self, core: Core, now: float = 0.0) -> None:
        self.core, self.now = core, now
        self.pending: list[Action] = []

    def at(self, now: float) -> Play:
        assert now >= self.now, "time does not go back"
        self.now = now
        return self

    def __rshift__(self, event: Event) -> Play:
        assert not self.pending, f"not expected: {self.pending}"
        self.pending = self.core.handle(event, self.now)
        return self

    def __lshift__(self, expected: Any) -> Play:
        if expected is NOTHING:
            assert self.pending == [], f"expected nothing, got {self.pending}"
            return self
        assert self.pending, f"expected {expected}, got nothing"
        got = self.pending.pop(0)
        assert same(got, expected), f"expected {expected}, got {got}"
        return self

    def to_deadline(self) -> Play:
        """Let time pass to when the core asked for a Tick."""
        return self.at(max(self.now, self.core.deadline))


class Overheard:
    """A core, and what it is told and answers: `heard` is called with the time, the event and the actions."""

    def __init__(self, core: Core, heard: Callable[[float, Event, list[Action]], object]) -> None:
        self._core, self._heard = core, heard

    def handle(self, event: Event, now: float) -> list[Action]:
        actions = self._core.handle(event, now)
        self._heard(now, event, actions)
        return actions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)


def same(got: Action, expected: Action) -> bool:
    if isinstance(got, Hedge) and isinstance(expected, Hedge):
        got = msgspec.structs.replace(got, why=expected.why and got.why)
    if isinstance(got, Forward | Divert) and isinstance(expected, Forward | Divert):
        got = msgspec.structs.replace(got, why=expected.why and got.why, rungs=expected.rungs and got.rungs)
    if isinstance(got, Reject) and isinstance(expected, Reject) and not expected.why:
        got = msgspec.structs.replace(got, why=())
        if expected.retry_after_s < 0:
            got = msgspec.structs.replace(got, retry_after_s=expected.retry_after_s)
    return got == expected


def call(id: int, *, model: str = "m", tokens: int = 1_000, stream: bool = True, **facts: Any) -> Request:
    return Request(id, model, prompt_tokens=tokens, stream=stream, **facts)


def flying(request: Request, task: TaskClass, lane: Lane, arrived: float, **state: Any) -> Flight:
    """A request in the core, in any state."""
    flight = Flight(request, task, lane, arrived)
    for name, value in state.items():
        setattr(flight, name, value)
    return flight


def build(
    *nodes: str | Node, rules: tuple[Class, ...] = (), policy: Policy | None = None, knobs: Knobs | None = None, **parts: Any
) -> Core:
    """A core over nodes given by name, with a seeded generator."""
    configured = tuple(Node(name=node, url="http://127.0.0.1:9") if isinstance(node, str) else node for node in nodes)
    config = Config(nodes=configured, classes=rules, policy=policy or Policy(), **parts)
    return Core(config, knobs or Knobs(), random.Random(1))
