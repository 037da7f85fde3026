"""What is tried for a request, in its class's order, compiled once.

A rung before `wait` is tried before the queue, one behind it when waiting is of no use: admission refuses the request, it
expires, or no node is there. Without `wait` a request that cannot start now goes straight on. `reject` is always the end.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock.config import Config
from penstock.facts import Request
from penstock.policy import RUNG
from penstock.policy.views import Around, Rung

END, WAIT = "reject", "wait"

Rungs = tuple[tuple[str, Rung], ...]


class Ladder:
    """A class's rungs, sorted by when they are tried."""

    __slots__ = ("eager", "names", "rungs", "serving", "waits")

    def __init__(self, names: tuple[str, ...], eager: Rungs = (), waits: bool = False, rungs: Rungs = (), serving: int = 0) -> None:
        self.names = names
        self.eager = eager
        """Before the request is started."""
        self.waits = waits
        """It may wait from the start."""
        self.rungs = rungs
        """Afterwards, in order."""
        self.serving = serving
        """So many of `rungs` go up to the last on which nodes serve the request."""


def compiled(names: Iterable[str]) -> Ladder:
    names = tuple(map(str, names))
    if END in names:
        names = names[: names.index(END)]
    rungs = [(name, RUNG[name]()) for name in names]
    ahead = names.index(WAIT) if WAIT in names else len(names)
    eager = tuple(rung for rung in rungs[:ahead] if rung[1].EAGER)
    left = tuple(rung for rung in rungs if rung not in eager)
    waits = bool(left) and left[0][0] == WAIT
    left = left[1:] if waits else left
    serving = max((place for place, rung in enumerate(left, 1) if rung[1].SERVES), default=0)
    return Ladder(names, eager, waits, left, serving)


USUAL = compiled((WAIT, END))


class Ladders:
    """The ladder of each class, and of each part of one that a caller may leave of it."""

    def __init__(self, config: Config) -> None:
        self.around = Around(config.smaller, {pool.name: pool.fallback for pool in config.pools if pool.fallback is not None})
        self.usual = compiled(config.ladder)
        self.classes = {rule.name: compiled(rule.ladder) for rule in config.classes if rule.ladder}
        self._parts: dict[tuple[str, ...], Ladder] = {}

    def of(self, request: Request, task: str) -> Ladder:
        """The ladder of a request of class `task`, shortened to what its caller allows."""
        whole = self.classes.get(task, self.usual) if self.classes else self.usual
        if request.ladder is None:
            return whole
        names = tuple(name for name in whole.names if name in request.ladder)
        if names not in self._parts:
            # At most as many as the classes' ladders have parts.
            self._parts[names] = compiled(names)
        return self._parts[names]


def named(config: Config) -> frozenset[str]:
    """The rungs that any ladder of the configuration has."""
    return frozenset(str(name) for ladder in (config.ladder, *(rule.ladder for rule in config.classes)) for name in ladder)
