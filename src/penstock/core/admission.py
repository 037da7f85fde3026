"""What is asked before a request may wait: when would its first token come, and whose promise would that break?"""

from __future__ import annotations

from math import inf
from random import Random

import msgspec

from penstock import config
from penstock.core.bands import Bands
from penstock.core.charge import cost
from penstock.core.claims import Claims
from penstock.core.fairness import Fairness
from penstock.core.flight import Flight
from penstock.core.lane import Lane
from penstock.core.route import Choice
from penstock.core.work import SLOT_S
from penstock.facts import Outcome
from penstock.knobs import Knobs
from penstock.policy import ADMIT, find
from penstock.policy.views import Admit

OWED = 0.5
"""A request that needs more than this share of its own time has no claim that others leave it room."""
MOST_FLOORS = 0.9
"""Floors leave at least the rest to others."""
RETRY_LEAST_S, RETRY_MOST_S = 0.5, 120.0
"""Official clients honour Retry-After up to 120 s."""


class View(msgspec.Struct, gc=False):
    waiting: int
    queue_max: int
    predicted_s: float
    left_s: float
    breaks_promise: bool
    crowds_out: bool


class Admission:
    def __init__(self, policy: config.Policy, knobs: Knobs, rng: Random, books: Fairness | None = None) -> None:
        self.books = books or Fairness()
        self.policy: Admit = find(ADMIT, policy.admit, "policy.admit")
        self.knobs, self.rng = knobs, rng

    def estimate(self, flight: Flight, choice: Choice | None) -> None:
        """Set the flight's own prefill time: at its best node now, or, with none able, uncached at any."""
        node = flight.lane.nodes[0] if choice is None else choice.node
        uncached = flight.request.prompt_tokens if choice is None else choice.uncached
        flight.own_s = uncached * node.token_s

    def refusal(self, flight: Flight, choice: Choice | None, now: float) -> Outcome | None:
        """The outcome to refuse `flight` with, or None. `choice` is its best node now, if any has a slot."""
        lane = flight.lane
        margin = 1.0 + self.knobs.margin
        breaks = crowds = False
        left = flight.due - now
        if choice is not None and not lane.queue.size:
            predicted = choice.ready_s
        else:
            ahead, ahead_s = lane.queue.ahead(flight.priority, flight.key)
            spare = 1.0 - min(MOST_FLOORS, lane.queue.promised_share(flight.task.name)) if lane.queue.floors.shares else 1.0
            if flight.account is not None and flight.account.rich:
                spare *= 1.0 - min(0.5, self.books.others_s / len(lane.nodes))
            predicted = self.wait_s(lane, ahead, ahead_s / spare, now) + lane.nodes[0].base_s + flight.own_s
            if left < inf:
                rate, start = self.supply(lane, now)
                rate *= spare
                breaks = lane.queue.slack_after(flight.priority, flight.key, ahead_s + flight.own_s * margin, rate, start) < 0
                after_s = self.wait_s(lane, lane.queue.size, (lane.queue.work_s() + flight.own_s) * margin / spare, now)
                bands = self._bands(flight, now)
                crowds = rate > 0 and bands.crowds_out(flight.request.prompt_tokens, after_s)
                if not bands.is_cheap(flight.request.prompt_tokens, flight.own_s):
                    predicted += bands.spared() * (flight.due - flight.arrived)
                if flight.account is not None and not crowds:
                    rich_s = self._claims(flight).ahead_of(flight.request.tenant, now)
                    crowds = rich_s is not None and after_s > rich_s
                if flight.task.floor and (breaks or crowds or predicted * margin > left) and rate > 0:
                    floor_s = self._by_floor_s(flight, rate / spare, start) + lane.nodes[0].base_s + flight.own_s
                    if floor_s * margin <= left:
                        predicted, breaks, crowds = floor_s, False, False
        refusal = self.policy.refusal(View(lane.queue.size, self.knobs.queue_max, predicted * margin, left, breaks, crowds))
        # While nothing waits and nothing is refused all are admitted alike: there is nothing to count.
        if left < inf and (lane.queue.size or refusal is not None) and flight.own_s <= OWED * left:
            room_s = left / margin - flight.own_s
            self._bands(flight, now).note(flight.request.prompt_tokens, refusal is None, room_s, now)
            if flight.account is not None and refusal is not None:
                self._claims(flight).refuse(flight.request.tenant, room_s, now)
        return refusal

    def withdrawn(self, flight: Flight, now: float) -> None:
        """It was admitted and not served after all."""
        self._bands(flight, now).withdrawn(flight.request.prompt_tokens)

    def served(self, flight: Flight, now: float) -> None:
        """It was dispatched."""
        claims = flight.lane.claims.get(flight.priority)
        if claims is not None:
            claims.served(flight.request.tenant, cost(flight), now)

    def _bands(self, flight: Flight, now: float) -> Bands:
        return flight.lane.bands if flight.account is None else self._claims(flight).claim(flight.request.tenant, now).bands

    def _claims(self, flight: Flight) -> Claims:
        claims = flight.lane.claims.get(flight.priority)
        if claims is None:
            claims = flight.lane.claims[flight.priority] = Claims()
        return claims

    def _by_floor_s(self, flight: Flight, rate: float, start: float) -> float:
        """When it starts by its class's floor alone, seconds from the time the nodes are free; infinite if that breaks a promise."""
        share = flight.task.floor * rate
        band = flight.lane.queue.floored.get(flight.task.name)
        if band is None:
            return 0.0
        _, ahead_s = band.work.until(flight.key)
        if band.work.slack(flight.key // SLOT_S, ahead_s + flight.own_s, share, start) < 0:
            return inf
        return ahead_s / share

    def pace(self, lane: Lane, now: float) -> tuple[float, float]:
        """`supply` as far as the queue sees it: where slots or memory are short, it drains more slowly than nodes prefill."""
        rate, start = self.supply(lane, now)
        if lane.blocked and lane.drain_s:
            rate = min(rate, lane.queue.work_s() / (lane.queue.size * lane.drain_s))
        return rate, start

    def supply(self, lane: Lane, now: float) -> tuple[float, float]:
        """Seconds of prefill the lane's nodes do per second, and when on average they are free to begin."""
        up = [node for node in lane.nodes if node.state == "up"]
        rate = sum(node.share for node in up)
        busy = sum(max(0.0, node.free_at - now) * node.share for node in up)
        return (rate, now + busy / rate) if rate else (0.0, now)

    def wait_s(self, lane: Lane, ahead: int, ahead_s: float, now: float) -> float:
        """Predicted wait behind `ahead` requests that need `ahead_s` seconds of prefill."""
        rate, start = self.supply(lane, now)
        wait = start - now + ahead_s / rate if rate else 0.0
        if lane.blocked and lane.drain_s:
            wait = max(wait, (ahead + 1) * lane.drain_s)
        return wait

    def retry_after_s(self, flight: Flight, now: float) -> float:
        """When the work ahead will have shrunk to what its deadline allows; jittered so that a refused crowd spreads."""
        ahead, ahead_s = flight.lane.queue.ahead(flight.priority, flight.key)
        wait = self.wait_s(flight.lane, ahead, ahead_s, now) + flight.own_s
        allowed = flight.due - flight.arrived if flight.due < inf else 0.0
        short = max(RETRY_LEAST_S, wait - 0.5 * allowed)
        return min(RETRY_MOST_S, short * (1.0 + self.rng.random()))
