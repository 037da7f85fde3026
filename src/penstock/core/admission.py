"""What is asked before a request may wait: when would its first token come, and whose promise would that break?"""

from __future__ import annotations

from math import inf
from random import Random

import msgspec

from penstock import config
from penstock.core.flight import Flight
from penstock.core.lane import Lane
from penstock.core.route import Choice
from penstock.facts import Outcome
from penstock.knobs import Knobs
from penstock.policy import ADMIT, find
from penstock.policy.views import Admit

RETRY_LEAST_S, RETRY_MOST_S = 0.5, 120.0
"""Official clients honour Retry-After up to 120 s."""


class View(msgspec.Struct, gc=False):
    waiting: int
    queue_max: int
    predicted_s: float
    left_s: float
    breaks_promise: bool


class Admission:
    def __init__(self, policy: config.Policy, knobs: Knobs, rng: Random) -> None:
        self.policy: Admit = find(ADMIT, policy.admit, "policy.admit")
        self.knobs, self.rng = knobs, rng

    def refusal(self, flight: Flight, choice: Choice | None, now: float) -> Outcome | None:
        """The outcome to refuse `flight` with, or None. `choice` is its best node now, if any has a slot."""
        lane = flight.lane
        margin = 1.0 + self.knobs.margin
        if choice is not None:
            node = choice.node
            flight.own_s = node.base_s + choice.uncached * node.token_s
        elif lane.nodes:
            node = lane.nodes[0]
            flight.own_s = node.base_s + flight.request.prompt_tokens * node.token_s
        breaks = False
        if choice is not None and not lane.queue.size:
            predicted = choice.ready_s
        else:
            ahead, ahead_s = lane.queue.ahead(flight.priority, flight.key)
            predicted = self.wait_s(lane, ahead, ahead_s, now) + flight.own_s
            if flight.due < inf:
                rate, start = self.supply(lane, now)
                breaks = lane.queue.slack_after(flight.priority, flight.key, ahead_s + flight.own_s * margin, rate, start) < 0
        view = View(lane.queue.size, self.knobs.queue_max, predicted * margin, flight.due - now, breaks)
        return self.policy.refusal(view)

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
