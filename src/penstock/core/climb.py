"""A request's way along its ladder. A part of the core, over its state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.core.flight import Flight
from penstock.core.ladder import WAIT
from penstock.core.lane import Lane
from penstock.core.members import ANY
from penstock.events import Action, Divert
from penstock.facts import Outcome
from penstock.policy.rung.step import Step

if TYPE_CHECKING:
    from penstock.core.core import Core


class Climb:
    __slots__ = ("core", "turned")

    def __init__(self, core: Core) -> None:
        self.core = core
        self.turned: list[tuple[Flight, Outcome]] = []
        """Those that the present pass found no longer able to wait, and that have rungs left."""

    def walk(self, flight: Flight, outcome: Outcome, now: float, actions: list[Action]) -> None:
        """Waiting does not serve it, or may not: try the rungs that are left, then refuse it with `outcome`."""
        rungs = flight.ladder.rungs
        while flight.rung < len(rungs):
            name, rung = rungs[flight.rung]
            flight.rung += 1
            step = rung.step(flight, self.core.ladders.around)
            if step is None:
                continue
            if step.divert:
                self.divert(flight, name, now, actions)
                return
            if step.wait:
                if not flight.lane.nodes:
                    # Its lane is gone, and there is no other for its model.
                    continue
                flight.waits = True
                if self.core.begin(flight, now, actions) is None:
                    return
            elif self.change(flight, name, step, now, actions):
                return
        self.core.reject(flight, outcome, now, actions)

    def change(self, flight: Flight, name: str, step: Step, now: float, actions: list[Action]) -> bool:
        """Whether the nodes of another lane take it; if not it stays where it was.

        It goes there as a new flight: the old one's entries in the queue it waited in are dead for good.
        """
        lane = self.sibling(flight, step.pool) if step.pool else self.core.lane_of(flight, step.lane)
        if lane is None or lane is flight.lane:
            return False
        moved = flight.copy()
        if step.lane:
            moved.aside = ""
        moved.lane, moved.model, moved.taken = lane, step.model or flight.model, (*flight.taken, name)
        self.core.flights[flight.request.id] = moved
        self.core.set_deadline(moved)
        if self.core.begin(moved, now, actions) is None:
            return True
        self.core.flights[flight.request.id] = flight
        return False

    def sibling(self, flight: Flight, pool: str) -> Lane | None:
        """The lane of this pool, or of the first along its fallbacks that serves the request's model."""
        fallbacks, lanes = self.core.ladders.around.fallbacks, self.core.by_pool
        while pool:
            flight.aside = pool
            lane = lanes.get((flight.model, pool)) or lanes.get((ANY, pool))
            if lane is not None:
                return lane
            pool = fallbacks.get(pool, "")
        return None

    def turn(self, flight: Flight, outcome: Outcome, now: float, actions: list[Action]) -> None:
        """It has been waiting, and that is of no use any more. A pass is ended before what may change another lane's queue."""
        if flight.form is not None:
            outcome = Outcome.FAILED
        if flight.rung < len(flight.ladder.rungs):
            self.waited(flight, now)
            self.turned.append((flight, outcome))
        else:
            self.core.reject(flight, outcome, now, actions)

    def waited(self, flight: Flight, now: float) -> None:
        if now > flight.queued and flight.taken[-1:] != (WAIT,):
            flight.taken = (*flight.taken, WAIT)

    def divert(self, flight: Flight, rung: str, now: float, actions: list[Action]) -> None:
        del self.core.flights[flight.request.id]
        if flight.account is not None:
            self.core.books.leave(flight.account)
        actions.append(Divert(flight.request.id, rung, (*flight.taken, rung), self.core.why(flight, now)))
