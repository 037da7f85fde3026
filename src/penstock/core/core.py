"""The core: one state, changed by events, answering with actions.

After every event one synchronous, idempotent dispatch pass: expire, then assign. Nothing waits for a wake-up that can be
lost, and a pass looks at a bounded number of queue heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from heapq import heappop
from math import inf
from random import Random
from typing import Any

from penstock.config import Config
from penstock.core import charge
from penstock.core.admission import Admission
from penstock.core.answers import Answers
from penstock.core.breaker import Result, result_of
from penstock.core.classify import Classifier
from penstock.core.climb import Climb
from penstock.core.fairness import Fairness
from penstock.core.fleet import Node, nodes_of
from penstock.core.flight import SPARE_S, Flight
from penstock.core.ladder import Ladders
from penstock.core.lane import ANY, Lane, served
from penstock.core.lengths import MOST, Lengths, capped
from penstock.core.prefix import PrefixIndex
from penstock.core.route import KEPT_SLOTS, Choice, Router
from penstock.core.second import Second
from penstock.core.way import Way
from penstock.events import (
    Action,
    Arrived,
    Cancel,
    Cancelled,
    ConfigReplaced,
    Event,
    Failed,
    Finished,
    FirstToken,
    Forward,
    KnobsSet,
    NodeDraining,
    NodeLost,
    NodeSeen,
    Progress,
    Reject,
    Tick,
)
from penstock.facts import BLOCK_TOKENS, Failure, Outcome, Profile, Snapshot
from penstock.knobs import Knobs
from penstock.policy import ORDER, find
from penstock.policy.order.deadline import Deadline
from penstock.policy.views import Order

PREFIX_BLOCKS = 65_536
"""Blocks believed cached on a node that does not say how much it holds: 32 M tokens; an index entry costs about 150 bytes."""
UNAVAILABLE_WAIT_S = 5.0
"""How long a request waits for a node while none is up: an engine that restarts at once is never noticed."""
PACED_TOKENS = 16
"""Shorter answers' time between tokens is chance, whatever the pace."""
HOLD_BACK, PATIENT_S = 0.25, 8.0
"""A request that waits for memory is kept some once a quarter of the time to its deadline is over, or of this."""
LATEST = Deadline()
GUESS_OUTPUT = 128
"""Output tokens of a class of which no answer has ended yet."""
BUSY_COST = 0.5
"""What a retry costs the budget when a node was busy whose concurrency is learned by trying."""
HIGHEST = 5
NEXT_STEP = 0.125
"""Share of the most urgent class's time that may wait in a node: the step under way and the next take twice as much, and decode."""
RETRIES_KEPT = 10.0
"""Unused retries are kept up to this many."""


def _length_key(flight: Flight) -> tuple[str, str, str]:
    return flight.lane.model, flight.task.name, flight.request.tenant


class Core:
    """`config` must have passed the checks of its loader; `profiles` are those that its nodes name."""

    def __init__(self, config: Config, knobs: Knobs, rng: Random, profiles: Mapping[str, Profile] | None = None) -> None:
        self.rng, self.knobs, self.profiles = rng, knobs, profiles or {}
        self.flights: dict[int, Flight] = {}
        self.lengths = Lengths()
        self.books = Fairness()
        self.answers = Answers()
        self.nodes: list[Node] = []
        self.lanes: dict[str, Lane] = {}
        self.waiting = 0
        self.retries = RETRIES_KEPT
        self.lowest = HIGHEST
        """Lowest priority that any request had: for it nobody is called back."""
        self.tightest_s = inf
        """Time to first token that the most urgent class has which has come, one above `lowest`."""
        self.depth_s = knobs.depth_s
        self.deadline = self._wake = inf
        self.prefixes = PrefixIndex()
        self._numbered = 0
        self.climb, self.way, self.second = Climb(self), Way(self), Second(self)
        self._handlers: dict[type, Callable[[Any, float, list[Action]], Node | None]] = {
            Arrived: self._arrived,
            FirstToken: self._first_token,
            Progress: self._progress,
            Finished: self._finished,
            Failed: self._failed,
            Cancelled: self._cancelled,
            NodeSeen: self._node_seen,
            NodeDraining: self._node_draining,
            NodeLost: self._node_lost,
            KnobsSet: self._knobs_set,
            ConfigReplaced: self._config_replaced,
            Tick: self._tick,
        }
        self._configure(config)

    # -- what drivers call

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take an event in; `now` is in seconds and never goes back. Unknown ids and nodes are ignored."""
        actions: list[Action] = []
        hint = self._handlers[type(event)](event, now, actions)
        deadline = inf
        if self.waiting:
            if type(event) is not Tick or now >= self._wake or self.way.alarmed(now, actions):
                self._dispatch(now, actions, hint)
            deadline = min(self._wake, self.way.alarm)
        hedges = self.second.hedges.heap
        if hedges:
            if hedges[0][0] <= now:
                self.second.try_overdue(now, actions)
            while hedges and ((watched := self.flights.get(hedges[0][1])) is None or watched.first >= 0):
                # It has shown what was waited for: nobody need wake up to see that.
                heappop(hedges)
            if hedges and hedges[0][0] < deadline:
                deadline = hedges[0][0]
        self.deadline = deadline
        return actions

    def serves(self, model: str) -> bool:
        return model in self.lanes or ANY in self.lanes

    def models(self) -> list[str]:
        return [model for model in self.lanes if model != ANY]

    def ready(self) -> bool:
        return any(node.state == "up" for node in self.nodes)

    def task_class(self, id: int) -> str | None:
        flight = self.flights.get(id)
        return None if flight is None else flight.task.name

    def allows(self, id: int, rung: str) -> bool:
        """Whether the ladder of a request that has not ended has the rung."""
        flight = self.flights.get(id)
        return flight is not None and rung in flight.ladder.names

    def place(self, id: int, now: float) -> tuple[int, float] | None:
        """Place in the queue from 1 and predicted seconds to the first token, of a request that waits."""
        flight = self.flights.get(id)
        if flight is None or not flight.waiting:
            return None
        queue = flight.lane.queue
        ahead, ahead_s = queue.place(flight, now)
        return max(1, ahead), self.admission.eta_s(flight, ahead, ahead_s, now, queue.own_place(flight))

    def snapshot(self, now: float) -> Snapshot:
        held = self.prefixes.recent
        return Snapshot(
            nodes=tuple(node.snapshot(len(held[node.index]), now) for node in self.nodes),
            lanes=tuple(lane.snapshot(now) for lane in self.lanes.values()),
            knobs={name: getattr(self.knobs, name) for name in self.knobs.__struct_fields__},
        )

    # -- a request's life

    def _arrived(self, event: Arrived, now: float, actions: list[Action]) -> None:
        request = event.request
        lane = self.lanes.get(request.model) or self.lanes.get(ANY)
        if lane is None:
            actions.append(Reject(request.id, Outcome.UNAVAILABLE, UNAVAILABLE_WAIT_S))
            return
        task, ladders = self.classify(request), self.ladders
        name, priority, most = task.name, task.priority, request.max_priority
        ladder = ladders.usual if request.ladder is None and not ladders.classes else ladders.of(request, name)
        if priority > most:
            priority = most
        flight = Flight(request, task, lane, now, ladder, request.model, ladder.waits or request.patient, priority=priority)
        self.flights[request.id] = flight
        if priority < self.lowest:
            self.lowest = priority
        if priority > self.lowest and task.soonest_s < inf:
            if priority > self.router.top:
                self.router.top, self.router.kept_slots = priority, KEPT_SLOTS
            if task.soonest_s < self.tightest_s:
                self.tightest_s = task.soonest_s
                self._set_depth()
        if self.retries < RETRIES_KEPT:
            self.retries += self.knobs.retry_share
        flight.length = self.lengths.find((lane.model, name, request.tenant))
        if lane.returns.every.due and request.retry:
            flight.returns = lane.returns.take((request.tenant, name), now, request.retry > 0)
        self._set_deadline(flight)
        for tried, rung in ladder.eager:
            if rung.step(flight, ladders.around) is not None:
                self.climb.divert(flight, tried, now, actions)
                return
        refusal = self._place(flight, now, actions)
        if refusal is not None:
            self.climb.walk(flight, refusal, now, actions)

    def _place(self, flight: Flight, now: float, actions: list[Action]) -> Outcome | None:
        """Start it on its lane's nodes, or have it wait for them where it may; else the outcome to refuse it with."""
        lane, knobs, admission = flight.lane, self.knobs, self.admission
        tokens = self._kv_tokens(flight)
        choice = self._choose(flight, tokens, self._leaves(flight, now), now)
        admission.estimate(flight, choice)
        if self.weighs or (self.fair and not self.books.alone(flight.request.tenant)):
            self._weigh(flight, now)
        flight.rank = flight.key = self.order.key(flight)
        if self.latest is not None:
            flight.key = self.latest.key(flight)
        if choice is None or lane.queue.size or not admission.lets_in(flight, choice, now):
            refusal = admission.refusal(flight, choice, now)
            if refusal is not None:
                return self.way.make(flight, refusal, now, actions) if knobs.preempt and flight.priority > self.lowest else refusal
        lane.drain.came(flight, now)
        if self.way.urgent(flight) and self.way.secure(flight, choice, tokens, now, actions):
            return None
        if (
            choice is not None
            and not lane.queue.size
            and (flight.by_end or (choice.node.has_room(self.depth_s, now, flight.own_s) and choice.node.spares(flight, flight.own_s, now)))
            and (flight.ends == inf or choice.node.in_time(flight, now))
        ):
            self._forward(flight, choice, now, actions)
        elif flight.waits:
            self._wait(flight, now)
        else:
            admission.withdrawn(flight, now)
            return Outcome.REFUSED_FULL
        return None

    def _leaves(self, flight: Flight, now: float) -> int:
        return self.admission.leaves(flight, now) if flight.lane.claims else 0

    def _choose(self, flight: Flight, tokens: int, leaves: int, now: float, hint: Node | None = None) -> Choice | None:
        """The router's choice among nodes with memory for `tokens`, and `leaves` more that it leaves to others."""
        choice = self.router.choose(flight, flight.lane.nodes, tokens + leaves, self.knobs, now, hint)
        if choice is not None:
            choice.kv_tokens = tokens
        return choice

    def _why(self, flight: Flight, now: float) -> tuple[float, float, float, float]:
        left_s = flight.due - now if flight.due < inf else -1.0
        return now - flight.arrived, flight.own_s, left_s, float(flight.lane.queue.size)

    # -- its way

    def _set_depth(self) -> None:
        """How much may wait in a node for its next step: a step cannot be called back, so urgent work waits for one to end."""
        self.depth_s = min(self.knobs.depth_s, NEXT_STEP * self.tightest_s)

    def _weigh(self, flight: Flight, now: float) -> None:
        """Who pays for it, and how much it will be."""
        if self.fair and flight.account is None:
            charge.enter(self.books, flight, self.flights.values(), now)
        if flight.account is not None or self.weighs:
            request = flight.request
            known = self.lengths.mean((flight.lane.model, flight.task.name), request.max_tokens)
            flight.output = known or min(GUESS_OUTPUT, request.max_tokens or GUESS_OUTPUT)

    def _set_deadline(self, flight: Flight) -> None:
        task, request = flight.task, flight.request
        if task.patient or request.patient:
            flight.due = inf
            return
        # `TaskClass.first_s`, for every request.
        flight.due = flight.arrived + (task.ttft_s + task.ttft_s_per_token * request.prompt_tokens)
        if task.total_s < inf and not flight.lane.learned():
            decode_s = capped(flight.length.mean, request.max_tokens) * flight.lane.nodes[0].steps.itl_s
            flight.due = min(flight.due, flight.arrived + task.total_s - decode_s)

    def _kv_tokens(self, flight: Flight) -> int:
        request, high = flight.request, flight.length.high
        quota = flight.quota = request.max_tokens if 0 < request.max_tokens < high else int(high)
        return request.prompt_tokens + quota

    def _wait(self, flight: Flight, now: float) -> None:
        if flight.patient:
            flight.expires = inf
        elif any(node.state == "up" for node in flight.lane.nodes):
            flight.expires = flight.due - flight.own_s if flight.due < inf else flight.arrived + self.knobs.queue_ttl_s
            if flight.rung < flight.ladder.serving:
                # Other nodes, of which no more is known than of these, are still to have time for it.
                flight.expires -= flight.lane.nodes[0].base_s + self.knobs.margin * flight.own_s + min(self.knobs.depth_s, SPARE_S)
        else:
            # Where there is something else to try, half of its time is left for that.
            share = 0.5 if flight.rung < len(flight.ladder.rungs) else 1.0
            flight.expires = now + min(share * (flight.due - now), UNAVAILABLE_WAIT_S)
        flight.queued = now
        flight.lane.drain.waits(True, now)
        if flight.grace_s:
            flight.expires += flight.grace_s
            flight.due += flight.grace_s
            flight.grace_s = 0.0
        flight.lane.queue.push(flight)
        flight.lane.turnouts.waits((flight.priority, flight.request.tenant), now)
        self.waiting += 1

    def _forward(self, flight: Flight, choice: Choice, now: float, actions: list[Action]) -> None:
        node, request, uncached = choice.node, flight.request, choice.uncached
        flight.node, flight.uncached, flight.forwarded = node, uncached, now
        flight.ready_at = now + choice.ready_s
        flight.attempt += 1
        node.give(flight, choice.kv_tokens, now)
        if request.stream and self.way.urgent(flight):
            node.urgent[request.id] = flight
        if flight.account is not None or self.weighs:
            charge.dispatched(self.books, flight, len(self.nodes), now)
            flight.owed = flight.lane.queue.floors.owes(flight.task.name, flight.priority)
            flight.lane.queue.dispatched(flight, charge.cost(flight), now)
            self.admission.served(flight, now)
        flight.lane.drain.forwarded(flight, now)
        if request.blocks:
            self.prefixes.insert(node.index, request.blocks)
        share, itl_s = self.knobs.hedge_share, node.steps.itl_s
        if share:
            hedges = self.second.hedges
            hedges.spare_tokens += share * choice.kv_tokens
            # While it is not known how long answers take, a whole one is never overdue.
            if flight.due < inf and (itl_s or request.stream) and len(flight.lane.nodes) > 1:
                overdue = now + choice.ready_s * (1.0 + self.knobs.margin) + SPARE_S
                if not request.stream:
                    overdue += self.second.whole_s(flight, node)
                last = flight.due - node.base_s - flight.own_s - SPARE_S
                hedges.watch(flight, overdue if overdue > last else last, self.flights)
        output_tokens, most = flight.length.mean, request.max_tokens
        if most and output_tokens > most:
            output_tokens = float(most)
        cached = float(request.prompt_tokens - uncached)
        why = (now - flight.arrived, choice.ready_s, cached, choice.score, float(flight.attempt), output_tokens, itl_s)
        model = "" if flight.model == request.model else flight.model
        actions.append(Forward(request.id, node.name, why, model, flight.taken))

    def _reject(self, flight: Flight, outcome: Outcome, now: float, actions: list[Action]) -> None:
        del self.flights[flight.request.id]
        if flight.account is not None:
            self.books.leave(flight.account)
        actions.append(Reject(flight.request.id, outcome, self.admission.retry_after_s(flight, now, outcome), self._why(flight, now)))

    def _first_token(self, event: FirstToken, now: float, actions: list[Action]) -> Node | None:
        flight = self.flights.get(event.id)
        if flight is None or flight.first >= 0:
            return None
        if flight.twin is not None:
            flight = self.second.decide(flight, flight.twin, event.node, now, actions)
        if event.node and (flight.node is None or flight.node.name != event.node):
            self.way.begun(flight, event.node, now)
        if flight.node is None or not flight.request.stream:
            return None
        flight.node.first_token(flight, now)
        flight.lane.drain.first_token(now - flight.forwarded)
        flight.first = now
        return flight.node

    def _finished(self, event: Finished, now: float, actions: list[Action]) -> Node | None:
        flight = self.flights.get(event.id)
        if flight is None:
            return None
        if flight.twin is not None:
            flight = self.second.decide(flight, flight.twin, event.node, now, actions)
        del self.flights[event.id]
        node = flight.node
        if flight.account is not None:
            known = event.output_tokens >= 0 or flight.charged < 0
            charge.settle(self.books, flight, event.output_tokens if known else int(flight.charged), now)
            self.books.leave(flight.account)
        if node is None:
            self._leave(flight)
            return None
        succeeded = event.status < 400
        if succeeded:
            request, task, tokens, model = flight.request, flight.task, event.output_tokens, flight.lane.model
            node.learn_end(flight, now)
            if node.concurrency is not None and node.concurrency.rules:
                self.answers.learn((model, task.name), now - flight.forwarded, node.concurrency.recent_s)
            if flight.first >= 0 and tokens >= PACED_TOKENS and task.tpot_s == node.tpot_s < inf and request.stream:
                node.learn_aim((now - flight.first) / (tokens - 1))
            if tokens > 0:
                # What an engine says is input: no answer is longer than the caller allowed, or than any engine writes.
                most, before = request.max_tokens or MOST, flight.counted
                if tokens > most:
                    tokens = most
                self.lengths.learn((model, task.name, request.tenant), tokens, True, before if before < tokens else tokens - 1)
            if event.cached_tokens >= 0 and request.blocks:
                expected = request.prompt_tokens - flight.uncached
                self.prefixes.correct(node.index, expected // BLOCK_TOKENS, event.cached_tokens // BLOCK_TOKENS)
        node.take_back(flight, now)
        if node.breaker.count or node.guarded:
            node.breaker.note(Result.SUCCESS if succeeded else Result.NEUTRAL, now, self.knobs)
            node.watch()
        return node

    def _failed(self, event: Failed, now: float, actions: list[Action]) -> Node | None:
        flight = self.flights.get(event.id)
        if flight is None or flight.node is None:
            return None
        twin = flight.twin
        if twin is not None:
            # The other of the two goes on alone.
            gone, left = (twin, flight) if twin.node is not None and twin.node.name == event.node else (flight, twin)
            left.twin = None
            self.flights[event.id] = left
            node = self._fail_on(gone, event.failure, now)
            left.tried |= gone.tried
            return node
        charge.settle(self.books, flight, -1, now)
        node = self._fail_on(flight, event.failure, now)
        # A node that is learned to be full by trying it says so now and then: that must not use up the budget of retries.
        cost = BUSY_COST if event.failure is Failure.BUSY and node.concurrency is not None and node.concurrency.rules else 1.0
        flight.node, flight.first = None, -1.0
        if event.started:
            self._reject(flight, Outcome.FAILED, now, actions)
        elif flight.due < now or self.retries < cost or all(flight.tried & other.bit for other in flight.lane.nodes):
            self.climb.walk(flight, Outcome.FAILED, now, actions)
        else:
            self.retries -= cost
            if flight.waits:
                self._wait(flight, now)
            elif self._place(flight, now, actions) is not None:
                self.climb.walk(flight, Outcome.FAILED, now, actions)
        return node

    def _fail_on(self, flight: Flight, failure: Failure, now: float) -> Node:
        """Its node failed it."""
        node = flight.node
        assert node is not None
        node.take_back(flight, now)
        node.breaker.note(result_of(failure), now, self.knobs)
        node.watch()
        if failure is Failure.BUSY:
            node.said_busy(now)
        else:
            flight.tried |= node.bit
        return node

    def _cancelled(self, event: Cancelled, now: float, actions: list[Action]) -> Node | None:
        flight = self.flights.pop(event.id, None)
        if flight is None:
            return None
        node = flight.node
        if flight.account is not None:
            charge.settle(self.books, flight, -1, now)
            self.books.leave(flight.account)
        if node is None:
            self._leave(flight)
            if not flight.lane.queue.size:
                flight.lane.drain.waits(False, now)
            return None
        for one in (flight, flight.twin):
            if one is not None and one.node is not None:
                one.node.take_back(one, now)
                actions.append(Cancel(event.id, one.node.name))
        return node

    def _hold_back(self, flight: Flight, tokens: int, ahead: Sequence[Flight], now: float) -> bool:
        """Where slots are free and memory is not, let the node with most of it keep what becomes free for one that has waited
        long. Its place in the order decides: it takes over what is kept for others than those `ahead` of it. Returns whether
        it is memory that is waited for.
        """
        open_nodes = [node for node in flight.lane.nodes if node.running < node.limit and node.admits(now)]
        if not open_nodes:
            return False
        if flight.claim is None and now - flight.arrived > HOLD_BACK * min(flight.due - flight.arrived, PATIENT_S):
            unclaimed = [node for node in open_nodes if node.memory.claimant is None]
            if not unclaimed:
                unclaimed = [node for node in open_nodes if node.memory.claimant not in ahead and node.memory.claimant is not flight]
            if unclaimed:
                node = max(unclaimed, key=lambda node: node.memory.capacity - node.memory.promised())
                if node.memory.claimant is not None:
                    node.memory.claimant.claim = None
                flight.claim = node
                node.memory.hold_back(flight, tokens)
        return True

    def _leave(self, flight: Flight) -> None:
        if flight.claim is not None:
            flight.claim.memory.let_go()
            flight.claim = None
        if flight.waiting:
            flight.lane.queue.remove(flight)
            flight.lane.turnouts.drop((flight.priority, flight.request.tenant))
            self.waiting -= 1

    # -- the dispatch pass

    def _dispatch(self, now: float, actions: list[Action], hint: Node | None) -> None:
        wake = inf
        for lane in self.lanes.values():
            queue = lane.queue
            if not queue.size:
                continue
            while (expired := queue.pop_expired(now)) is not None:
                self.waiting -= 1
                if expired.claim is not None:
                    expired.claim.memory.let_go()
                    expired.claim = None
                self.admission.withdrawn(expired, now)
                lane.pressure.withdrawn(now)
                lane.drain.departed(expired, lane.blocked, now)
                lane.turnouts.goes((expired.priority, expired.request.tenant), now)
                lane.turnouts.drop((expired.priority, expired.request.tenant))
                up = any(node.state == "up" for node in lane.nodes)
                self.climb.turn(expired, Outcome.EXPIRED if up else Outcome.UNAVAILABLE, now, actions)
            if self.knobs.preempt:
                self.way.rescue(lane, now, actions)
            self._assign(lane, now, actions, hint)
            if queue.size:
                wake = min(wake, queue.next_expiry(), self._opening(lane, now))
            else:
                lane.drained_at = 0.0
                lane.drain.waits(False, now)
        self._wake = wake
        self.way.set_alarm()
        if self.climb.turned or self.way.stirred:
            turned, self.climb.turned, self.way.stirred = self.climb.turned, [], False
            for flight, outcome in turned:
                self.climb.walk(flight, outcome, now, actions)
            self._dispatch(now, actions, hint)

    def _opening(self, lane: Lane, now: float) -> float:
        """When the next of the lane's nodes has room again; nodes late already are waited for by events, not by the clock."""
        depth_s = self.depth_s
        if len(lane.nodes) > 64:
            return now + depth_s
        times = [time for node in lane.nodes for time in (*node.opens_at(depth_s), node.breaker.reopens)]
        return min((time for time in times if time > now), default=inf)

    def _assign(self, lane: Lane, now: float, actions: list[Action], hint: Node | None) -> None:
        """Give waiting heads to nodes with room. A head that does best to wait for a node lays claim to it for this pass."""
        queue, knobs = lane.queue, self.knobs
        if len(lane.nodes) <= 64 and not any(node.may_take(self.depth_s, now) for node in lane.nodes):
            return
        if queue.looks_stale(now):
            queue.look(*self.admission.pace(lane, now))
        skipped: list[Flight] = []
        least = inf
        claims: list[tuple[Node, float]] = []
        was_blocked, lane.blocked = lane.blocked, False
        while len(skipped) < knobs.scan and (flight := queue.pop()) is not None:
            tokens = self._kv_tokens(flight)
            leaves = self._leaves(flight, now)
            tried = tokens + leaves < least or flight.claim is not None
            choice = self._choose(flight, tokens, leaves, now, hint) if tried else None
            if choice is None and self.router.kept(flight, lane.nodes, knobs.kept_busy):
                queue.pass_over(flight)
                skipped.append(flight)
                # While nothing is dispatched nothing else tells that the others have left.
                self.books.survey(len(lane.nodes), now)
            elif choice is None:
                lane.blocked = True
                skipped.append(flight)
                if not flight.tried and tried:
                    # Smaller ones may pass one that waits for memory, until it has waited long.
                    if not self._hold_back(flight, tokens, skipped, now):
                        break
                    least = min(least, tokens + leaves)
            elif (ready := now + (flight.own_s if flight.by_end else choice.ready_s)) > flight.due and self.way.may_open(flight, now):
                skipped.append(flight)
            elif ready > flight.due:
                self._leave(flight)
                self.admission.withdrawn(flight, now)
                lane.pressure.withdrawn(now)
                self.climb.turn(flight, Outcome.EXPIRED, now, actions)
            elif not choice.node.in_time(flight, now):
                skipped.append(flight)
            elif (
                (
                    flight.by_end
                    or (
                        choice.node.has_room(self.depth_s, now, choice.uncached * choice.node.token_s)
                        and choice.node.spares(flight, choice.uncached * choice.node.token_s, now)
                    )
                )
                # Who was called back goes again when nothing is ahead of it, not to be in somebody's way at once.
                and (not flight.recalls or choice.node.free_at <= now)
            ):
                lane.turnouts.goes((flight.priority, flight.request.tenant), now)
                self._leave(flight)
                lane.drained(now)
                if flight.account is not None:
                    flight.account.drained(now)
                lane.drain.departed(flight, was_blocked, now)
                self.climb.waited(flight, now)
                self._forward(flight, choice, now, actions)
            else:
                skipped.append(flight)
                claims.append((choice.node, choice.node.free_at))
                choice.node.free_at = max(now, choice.node.free_at) + choice.uncached * choice.node.token_s
        for node, free_at in reversed(claims):
            node.free_at = free_at
        for flight in skipped:
            queue.put_back(flight)

    def _tick(self, event: Tick, now: float, actions: list[Action]) -> None:
        """Time alone: the dispatch pass does the rest."""

    # -- the fleet

    def _node(self, name: str) -> Node | None:
        return next((node for node in self.nodes if node.name == name), None)

    def _progress(self, event: Progress, now: float, actions: list[Action]) -> None:
        node = self._node(event.node)
        if node is not None:
            node.progress(event.tokens, event.stream_s, now)
            for flight in node.memory.pool.passed(node.clock(now)):
                self._top_up(flight, node, now)
            charge.produced(self.books, node, self.flights, now)

    def _top_up(self, flight: Flight, node: Node, now: float) -> None:
        """Its answer is longer than was reserved for it: reserve what most answers that got so far will need."""
        self.lengths.learn(_length_key(flight), flight.quota, ended=False, before=flight.counted)
        flight.counted = flight.quota
        flight.quota = int(capped(flight.length.longer(flight.quota, 1 - self.lengths.quantile), flight.request.max_tokens))
        node.memory.reserve(flight.request.id, flight.prompt_kv + flight.quota)
        node.memory.pool.grew(flight)

    def _node_seen(self, event: NodeSeen, now: float, actions: list[Action]) -> Node | None:
        node = self._node(event.node)
        if node is None:
            return None
        node.hear(event.signals, now)
        if node.state == "lost":
            node.state = "up"
            node.breaker.reopens = min(node.breaker.reopens, now)
        node.watch()
        models = event.signals.models
        if models and not node.config.models and models != node.models:
            node.models = models
            self._build_lanes(now, actions)
        return node

    def _node_draining(self, event: NodeDraining, now: float, actions: list[Action]) -> None:
        node = self._node(event.node)
        if node is not None:
            node.state = "draining"
            node.watch()

    def _node_lost(self, event: NodeLost, now: float, actions: list[Action]) -> None:
        node = self._node(event.node)
        if node is not None:
            node.state = "lost"
            node.watch()
            self.prefixes.clear(node.index)

    def _knobs_set(self, event: KnobsSet, now: float, actions: list[Action]) -> None:
        self.knobs = self.admission.knobs = event.knobs
        self._set_depth()
        for node in self.nodes:
            node.size_memory(event.knobs)

    def _config_replaced(self, event: ConfigReplaced, now: float, actions: list[Action]) -> None:
        self._configure(event.config, now, actions)

    def _configure(self, config: Config, now: float = 0.0, actions: list[Action] | None = None) -> None:
        self.config = config
        self.tightest_s = inf
        self._set_depth()
        self.classify = Classifier(config.classes)
        self.ladders = Ladders(config)
        self.order: Order = find(ORDER, config.policy.order, "policy.order")
        self.fair = getattr(self.order, "between_tenants", False)
        self.yields = self.fair or getattr(self.order, "yields", False)
        self.latest = LATEST if self.yields and type(self.order).key is not Deadline.key else None
        """The order by which it yields, where it is another."""
        self.shares = {task.name: task.floor for task in self.classify.classes if task.floor > 0}
        self.weighs = bool(self.shares) or (self.yields and not self.fair)
        self.admission = Admission(config.policy, self.knobs, self.rng, self.books, self.answers)
        self.router = Router(config.policy, self.prefixes, self.rng, self.books)
        old = {node.name: node for node in self.nodes}
        self.nodes = nodes_of(config, self.knobs, self.profiles, old, self._numbered)
        tpot_s = min(task.tpot_s for task in self.classify.classes)
        for node in self.nodes:
            node.tpot_s = tpot_s
            node.learn_pace()
            if node.index >= self._numbered:
                self._numbered = node.index + 1
                self.prefixes.add_node(node.index, self._prefix_limit(node))
        self._build_lanes(now, [] if actions is None else actions)

    def _prefix_limit(self, node: Node) -> int:
        profile = self.profiles.get(node.config.profile or "")
        tokens = (profile.cache_tokens or profile.kv_tokens) if profile else node.config.kv_tokens or PREFIX_BLOCKS * BLOCK_TOKENS
        return max(1, tokens // BLOCK_TOKENS)

    def _build_lanes(self, now: float, actions: list[Action]) -> None:
        """Lanes by what nodes serve. A lane that is gone hands its waiting requests to those that serve their models now."""
        old = self.lanes
        self.lanes = {}
        for model, nodes in served(self.nodes, self.config.pools).items():
            kept = old.pop(model, None)
            lane = self.lanes[model] = Lane(model, nodes) if kept is None else kept
            lane.nodes = nodes
            lane.order_by(self.books if self.yields or self.shares else None, self.shares)
        for lane in old.values():
            for flight in lane.queue.flights():
                self._leave(flight)
                heir = self.lanes.get(flight.model) or self.lanes.get(ANY)
                if heir is None:
                    self.climb.waited(flight, now)
                    self.climb.walk(flight, Outcome.UNAVAILABLE, now, actions)
                else:
                    flight.lane = heir
                    self._wait(flight, now)
