"""What is asked before a request may wait: when would its first token come, and whose promise would that break?"""

from __future__ import annotations

from math import inf, log, log2
from random import Random

from penstock import config
from penstock.core import forecast
from penstock.core.answers import Answers, cold, mean_s, per_s
from penstock.core.bands import Bands
from penstock.core.charge import cost
from penstock.core.claims import Claims
from penstock.core.fairness import Fairness
from penstock.core.flight import Flight
from penstock.core.lane import Lane
from penstock.core.route import Choice
from penstock.core.supply import Supply
from penstock.core.work import SLOT_S
from penstock.facts import Outcome
from penstock.knobs import Knobs
from penstock.policy import ADMIT, find
from penstock.policy.views import Admit, AdmitView

HASTE = 0.1
"""Share of the time for a whole answer that it may wait even where answers take so long that many are late."""
CALM = 5.0
"""One by so much of a share refused, and nothing is let in that is not most probably in time."""
DOUBLINGS = 3
"""A new node is believed to give eight times as many answers as it does, and no more."""
OWED = 0.5
"""A request that needs more than this share of its own time has no claim that others leave it room."""
MOST_FLOORS = 0.9
"""Floors leave at least the rest to others."""
KEPT = 0.4
"""Share of the longest wait that is kept for those who were told to come back, while they do."""
HIGHEST = 5
FULL_SHARE = 0.5
"""Nodes whose streams leave less of the time for prompts are full, though they may have slots and memory."""
GUESS_PER_S = 8.0
"""Answers a second of a node that has given none."""
LEAST_SHARE = 0.1
"""Of the rate at which all are served, what a class is promised of whose requests few have come."""
PROMISED = (Outcome.REFUSED_FULL, Outcome.REFUSED_DEADLINE, Outcome.EXPIRED)
RETRY_LEAST_S, RETRY_MOST_S = 0.5, 120.0
"""Official clients honour Retry-After up to 120 s."""


class Admission:
    def __init__(
        self, policy: config.Policy, knobs: Knobs, rng: Random, books: Fairness | None = None, answers: Answers | None = None
    ) -> None:
        """`books` and `answers` are what was learned of tenants and of answers' times before, if anything was."""
        self.books = books or Fairness()
        self.policy: Admit = find(ADMIT, policy.admit, "policy.admit")
        self.prompt: bool = getattr(self.policy, "prompt", False)
        self.knobs, self.rng = knobs, rng
        self.answers = answers or Answers()

    def estimate(self, flight: Flight, choice: Choice | None) -> None:
        """Set the flight's own prefill time: at its best node now, or, with none able, uncached at any."""
        node = flight.lane.nodes[0] if choice is None else choice.node
        uncached = flight.request.prompt_tokens if choice is None else choice.uncached
        flight.own_s = uncached * node.token_s
        if flight.task.total_s < inf and not flight.request.patient and flight.lane.learned():
            self._date_whole(flight, node.base_s)

    def _date_whole(self, flight: Flight, base_s: float) -> None:
        """Of nodes of which only ends are seen: when to begin, so that the whole answer is most probably in time.

        Prefill is part of the answer there; what first tokens say of it where there is a line inside a node is the line.
        Where even an answer begun at once is not, it may begin at once if it is quite likely to be.
        """
        flight.ends = flight.arrived + flight.task.total_s
        flight.usual, high = self.answers.ratios((flight.lane.model, flight.task.name))
        mean = mean_s(flight.lane.nodes)
        latest = flight.ends - mean * flight.usual
        sure = min(latest, max(flight.ends - mean * high, flight.arrived + HASTE * flight.task.total_s))
        flight.by_end = flight.task.ttft_s == inf
        flight.due = min(flight.due, sure + flight.own_s + (0.0 if flight.by_end else base_s))
        flight.grace_s = latest - sure

    def lets_in(self, flight: Flight, choice: Choice, now: float) -> bool:
        """The common case: nothing waits, and it can start at once and in time. Then `refusal` would find nothing, and note nothing."""
        return (
            self.prompt
            and choice.ready_s * (1.0 + self.knobs.margin) <= flight.due - now
            and flight.ends == inf
            and not flight.lane.returns.every.due
        )

    def refusal(self, flight: Flight, choice: Choice | None, now: float) -> Outcome | None:
        """The outcome to refuse `flight` with, or None. `choice` is its best node now, if any has a slot."""
        lane = flight.lane
        margin = 1.0 + self.knobs.margin
        breaks = crowds = False
        left = flight.due - now
        if flight.grace_s:
            # While next to nothing is refused, what is quite likely in time is let in as well.
            left += flight.grace_s * max(0.0, 1.0 - CALM * lane.pressure.share())
        base_s = 0.0 if flight.by_end else lane.nodes[0].base_s
        if choice is not None and (not lane.queue.size or self._passes(flight, now)):
            predicted = flight.own_s if flight.by_end else choice.ready_s
        else:
            ahead, ahead_s = lane.queue.ahead(flight.priority, flight.key)
            spare = 1.0 - min(MOST_FLOORS, lane.queue.promised_share(flight.task.name)) if lane.queue.floors.shares else 1.0
            if flight.account is not None and flight.account.rich and flight.priority <= min(lane.claims, default=HIGHEST):
                spare *= 1.0 - min(0.5, self.books.others_s / len(lane.nodes))
            supply = self.supply(lane, now, flight.by_end, spare)
            predicted = self.wait_s(lane, ahead, ahead_s, now, supply) + base_s + flight.own_s
            if left < inf:
                breaks = lane.queue.slack_after(flight.priority, flight.key, ahead_s + flight.own_s * margin, supply) < 0
                # What waits of lower priorities is in the way of nobody that has a claim here.
                all_count, all_s = lane.queue.ahead(flight.priority, inf)
                after_s = self.wait_s(lane, all_count, (all_s + flight.own_s) * margin, now, supply)
                bands = self._bands(flight, now)
                crowds = supply.rate > 0 and bands.crowds_out(flight.request.prompt_tokens, after_s)
                if not bands.is_cheap(flight.request.prompt_tokens, flight.own_s):
                    predicted += bands.spared() * (flight.due - flight.arrived)
                if flight.account is not None and not crowds:
                    rich_s = self._claims(flight).ahead_of(flight.request.tenant, now)
                    crowds = rich_s is not None and after_s > rich_s
                if flight.task.floor and (breaks or crowds or predicted * margin > left) and supply.rate > 0:
                    floor_s = self._by_floor_s(flight, supply.rate / spare, supply.when(0.0)) + base_s + flight.own_s
                    if floor_s * margin <= left:
                        predicted, breaks, crowds = floor_s, False, False
        room = 1.0
        if flight.returns:
            crowds = False
        elif flight.ends < inf or lane.returns.every.due:
            room = self._room(flight, now)
        if left < inf and room < 1.0:
            left -= (1.0 - room) * max(0.0, left - base_s - flight.own_s)
        most = max(1, int(self.knobs.queue_max * room)) if flight.ends == inf else self.knobs.queue_max
        refusal = self.policy.refusal(AdmitView(lane.queue.size, most, predicted * margin, left, breaks, crowds))
        if flight.ends < inf:
            lane.pressure.note(refusal is not None, now)
        # While nothing waits and nothing is refused all are admitted alike: there is nothing to count.
        if left < inf and (lane.queue.size or refusal is not None) and flight.own_s <= OWED * left:
            room_s = left / margin - flight.own_s
            self._bands(flight, now).note(flight.request.prompt_tokens, refusal is None, room_s, now)
            if flight.account is not None and refusal is not None:
                self._claims(flight).refuse(flight.request.tenant, room_s, now)
            if flight.account is not None and full(lane):
                self._claims(flight).short(flight.request.tenant, refusal is not None, now)
        return refusal

    def _passes(self, flight: Flight, now: float) -> bool:
        """Whether it need not wait behind others that wait for memory: what they leave free is for those who are served less."""
        lane = flight.lane
        if not lane.blocked or flight.account is None or flight.due == inf:
            return False
        return self._claims(flight).rank(flight.request.tenant, now) < 1.0

    def leaves(self, flight: Flight, now: float) -> int:
        """Tokens of a node's memory that it has to leave free for tenants that are served less."""
        claims = flight.lane.claims.get(flight.priority)
        if claims is None or not claims.kept or flight.due == inf:
            return 0
        capacity = flight.lane.nodes[0].memory.capacity
        return 0 if capacity == inf else int(claims.leaves(flight.request.tenant, now) * capacity)

    def withdrawn(self, flight: Flight, now: float) -> None:
        """It was admitted and not served after all."""
        self._bands(flight, now).withdrawn(flight.request.prompt_tokens)
        if flight.account is not None and flight.due < inf and full(flight.lane):
            self._claims(flight).short(flight.request.tenant, True, now)

    def served(self, flight: Flight, now: float) -> None:
        """It was dispatched."""
        claims = flight.lane.claims.get(flight.priority)
        if claims is not None:
            claims.served(flight.request.tenant, cost(flight), now)
            flight.claims = claims

    def _bands(self, flight: Flight, now: float) -> Bands:
        if flight.account is not None:
            return self._claims(flight).claim(flight.request.tenant, now).bands
        bands = flight.lane.bands.get(flight.priority)
        if bands is None:
            bands = flight.lane.bands[flight.priority] = Bands()
        return bands

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
        if band.work.slack(flight.key // SLOT_S, ahead_s + flight.own_s, Supply.flat(share, start)) < 0:
            return inf
        return ahead_s / share

    def pace(self, lane: Lane, now: float) -> Supply:
        """`supply` as far as the queue sees it: where slots or memory are short, it drains more slowly than nodes prefill."""
        supply = self.supply(lane, now)
        if lane.blocked and lane.drain_s:
            drained = lane.queue.work_s() / (lane.queue.size * lane.drain_s)
            if drained < supply.rate:
                return Supply.flat(drained, now)
        return supply

    def _room(self, flight: Flight, now: float) -> float:
        """Share of the longest wait, and of the queue, that a request may use that comes for the first time."""
        lane = flight.lane
        room = 1.0 - KEPT * lane.returns.expected(now) if lane.returns.every.due else 1.0
        if flight.ends < inf:
            # What is refused anyway need not be many times what is served: a short line serves as many, and sooner.
            room *= 1.0 - lane.pressure.share()
        return room

    def supply(self, lane: Lane, now: float, at_once: bool = False, share: float = 1.0) -> Supply:
        """The prefill that the lane's nodes can do, or `share` of it; `at_once`: whatever they have been given."""
        if at_once:
            return Supply.flat(share * sum(node.share for node in lane.nodes if node.state == "up"), now)
        return Supply(lane.nodes, now, share)

    def wait_s(self, lane: Lane, ahead: int, ahead_s: float, now: float, supply: Supply | None = None) -> float:
        """Predicted wait behind `ahead` requests that need `ahead_s` seconds of prefill, of all that there is or of `supply`."""
        if (ends_per_s := per_s(lane.nodes)) > 0:
            return self._until_ended(lane, ahead + 1, ends_per_s)
        if supply is None:
            supply = self.supply(lane, now)
        wait = supply.when(ahead_s) - now if supply.rate else 0.0
        if lane.blocked and lane.drain_s and not cold(lane.nodes):
            wait = max(wait, (ahead + 1) * lane.drain_s)
        return wait

    def _until_ended(self, lane: Lane, answers: int, ends_per_s: float) -> float:
        """Seconds in which so many answers end, at `ends_per_s` now; new nodes are given twice as much in an answer's time."""
        if any(node.concurrency is not None and node.concurrency.starting for node in lane.nodes):
            doubling_s = mean_s(lane.nodes)
            most: float = 2**DOUBLINGS * ends_per_s
            meanwhile = (most - ends_per_s) * doubling_s / log(2)
            if answers > meanwhile:
                return DOUBLINGS * doubling_s + (answers - meanwhile) / most
            return doubling_s * log2(1 + answers * log(2) / (ends_per_s * doubling_s))
        return answers / ends_per_s

    def eta_s(self, flight: Flight, ahead: int, ahead_s: float, now: float) -> float:
        """Predicted seconds to the first token of a request that waits behind `ahead` others, as the queue drains of late."""
        wait = forecast.wait_s(flight.lane, flight, now)
        if wait is None:
            return self.wait_s(flight.lane, ahead, ahead_s, now)
        return wait + (flight.lane.drain.first_s if flight.request.stream else 0.0)

    def retry_after_s(self, flight: Flight, now: float, outcome: Outcome = Outcome.REFUSED_DEADLINE) -> float:
        """When the work ahead will have shrunk to what its deadline allows, and the returns promised before have been served."""
        lane = flight.lane
        ahead, ahead_s = lane.queue.ahead(flight.priority, flight.key)
        wait = self.wait_s(lane, ahead, ahead_s, now) + flight.own_s
        allowed = flight.due - flight.arrived if flight.due < inf else 0.0
        short = min(RETRY_MOST_S, max(RETRY_LEAST_S, wait - 0.5 * allowed))
        if outcome in PROMISED:
            return lane.returns.refuse((flight.request.tenant, flight.task.name), short, self._rate(flight), now, self.rng)
        return min(RETRY_MOST_S, short * (1.0 + self.rng.random()))

    def _rate(self, flight: Flight) -> float:
        """Requests a second of its class that the lane can serve: as many as of late, and what others leave."""
        lane, drain = flight.lane, flight.lane.drain
        mine, every = drain.class_rate(flight.task.name), drain.total_rate
        most = max(every, per_s(lane.nodes))
        if not most:
            return sum(min(GUESS_PER_S, node.limit) for node in lane.nodes if node.state == "up")
        return max(mine, most - (every - mine), LEAST_SHARE * most)


def full(lane: Lane) -> bool:
    """Whether what runs on the nodes is what keeps others out: in their memory, or in the time between its tokens."""
    return lane.blocked or sum(node.share for node in lane.nodes) < FULL_SHARE * len(lane.nodes)
