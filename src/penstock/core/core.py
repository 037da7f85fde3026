"""The core: one state, changed by events, answering with actions.

After every event one synchronous, idempotent dispatch pass: expire, then assign. Nothing waits for a wake-up that can be
lost, and a pass looks at a bounded number of queue heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import heappop
from math import inf
from random import Random
from typing import Any

from msgspec.structs import replace

from penstock.config import Config
from penstock.core import charge
from penstock.core.admission import Admission
from penstock.core.answers import Answers
from penstock.core.breaker import Result, result_of
from penstock.core.classify import Classifier
from penstock.core.climb import Climb
from penstock.core.dispatch import Dispatch
from penstock.core.fairness import Fairness
from penstock.core.fleet import Node
from penstock.core.flight import SPARE_S, Flight
from penstock.core.ladder import Ladders
from penstock.core.lane import Lane, shown
from penstock.core.lengths import MOST, Lengths, capped
from penstock.core.members import ANY, Key
from penstock.core.prefix import PrefixIndex
from penstock.core.resume import Resume
from penstock.core.roster import Roster
from penstock.core.route import KEPT_SLOTS, Choice, Router
from penstock.core.second import Second
from penstock.core.sessions import Sessions
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

UNAVAILABLE_WAIT_S = 5.0
"""How long a request waits for a node while none is up: an engine that restarts at once is never noticed."""
PACED_TOKENS = 16
"""Shorter answers' time between tokens is chance, whatever the pace."""
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
        """Model -> where its requests go, but for those that meet one of that lane's `rules`."""
        self.by_pool: dict[Key, Lane] = {}
        """All lanes."""
        self.waiting = 0
        self.retries = RETRIES_KEPT
        self.lowest = HIGHEST
        """Lowest priority that any request had: for it nobody is called back."""
        self.tightest_s = inf
        """Time to first token that the most urgent class has which has come, one above `lowest`."""
        self.depth_s = knobs.depth_s
        self.deadline = inf
        self.prefixes, self.sessions = PrefixIndex(), Sessions()
        self.climb, self.way, self.second = Climb(self), Way(self), Second(self)
        self.dispatch, self.roster, self.resume = Dispatch(self), Roster(self), Resume(self)
        self._handlers: dict[type, Callable[[Any, float, list[Action]], Node | None]] = {
            Arrived: self._arrived,
            FirstToken: self._first_token,
            Progress: self.roster.progress,
            Finished: self._finished,
            Failed: self._failed,
            Cancelled: self._cancelled,
            NodeSeen: self.roster.seen,
            NodeDraining: self.roster.draining,
            NodeLost: self.roster.lost,
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
            if type(event) is not Tick or now >= self.dispatch.wake or self.way.alarmed(now, actions):
                self.dispatch.run(now, actions, hint)
            deadline = min(self.dispatch.wake, self.way.alarm)
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
        return self.lane(model) is not None

    def lane(self, model: str) -> Lane | None:
        """Where requests for a model go that meet no rule. What a pool names is served nowhere else, by whoever may have it."""
        lane = self.lanes.get(model)
        return self.lanes.get(ANY) if lane is None and model not in self.roster.kept else lane

    def lane_of(self, flight: Flight, model: str = "") -> Lane | None:
        """Where a request that is here would go if it came now, or if it came for this model."""
        model = model or flight.model
        lane = self.lane(model)
        if lane is None or not lane.rules:
            return lane
        request = flight.request if flight.request.model == model else replace(flight.request, model=model)
        return lane.led(request, flight.task)

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

    def continues(self, id: int) -> bool:
        """Whether a stream that breaks off may go on elsewhere: its class has it so, and there are other nodes."""
        flight = self.flights.get(id)
        return flight is not None and flight.task.continues and len(flight.lane.nodes) > 1

    def place(self, id: int, now: float) -> tuple[int, float] | None:
        """Place in the queue from 1 and predicted seconds to the first token, of a request that waits."""
        flight = self.flights.get(id)
        if flight is None or not flight.waiting:
            return None
        ahead, ahead_s = flight.lane.queue.place(flight, now)
        return max(1, ahead), self.admission.eta_s(flight, ahead, ahead_s, now)

    def snapshot(self, now: float) -> Snapshot:
        held = self.prefixes.recent
        return Snapshot(
            nodes=tuple(node.snapshot(len(held[node.index]), now) for node in self.nodes),
            lanes=tuple(lane.snapshot(now) for lane in shown(self.by_pool.values())),
            knobs={name: getattr(self.knobs, name) for name in self.knobs.__struct_fields__},
        )

    # -- a request's life

    def _arrived(self, event: Arrived, now: float, actions: list[Action]) -> None:
        request = event.request
        lane = self.lanes.get(request.model) or self.lane(request.model)
        if lane is None:
            actions.append(Reject(request.id, Outcome.UNAVAILABLE, UNAVAILABLE_WAIT_S))
            return
        task, ladders = self.classify(request), self.ladders
        if lane.rules:
            lane = lane.led(request, task)
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
            told = request.retry > 0
            # Who does not say that it came before has no claim: under overload anybody would come in a promised moment.
            flight.returns = lane.returns.take((request.tenant, name), now, told) and told
        self.set_deadline(flight)
        for tried, rung in ladder.eager:
            if rung.step(flight, ladders.around) is not None:
                self.climb.divert(flight, tried, now, actions)
                return
        refusal = self.begin(flight, now, actions)
        if refusal is not None:
            self.climb.walk(flight, refusal, now, actions)

    def begin(self, flight: Flight, now: float, actions: list[Action]) -> Outcome | None:
        """Start it on its lane's nodes, or have it wait for them where it may; else the outcome to refuse it with."""
        lane, knobs, admission = flight.lane, self.knobs, self.admission
        tokens = self.kv_tokens(flight)
        if lane.claims:
            choice = self.choose(flight, tokens, self.leaves(flight, now), now)
        else:
            choice = self.router.choose(flight, lane.nodes, tokens, knobs, now)
        admission.estimate(flight, choice)
        if self.weighs or (self.fair and not self.books.alone(flight.request.tenant)):
            self._weigh(flight, now)
            if flight.account is not None and flight.account.apart and flight.due == inf:
                choice = self.choose(flight, tokens, self.leaves(flight, now), now)
        flight.rank = flight.key = self.order.key(flight)
        if self.latest is not None:
            flight.key = self.latest.key(flight)
        if choice is None or lane.queue.size or not admission.lets_in(flight, choice, now):
            refusal = admission.refusal(flight, choice, now)
            if refusal is not None:
                return self.way.make(flight, refusal, now, actions) if knobs.preempt and flight.priority > self.lowest else refusal
        lane.demands.add(flight, now)
        if flight.priority > self.lowest and self.way.urgent(flight) and self.way.secure(flight, choice, tokens, now, actions):
            return None
        if (
            choice is not None
            and not lane.queue.size
            and (flight.by_end or (choice.node.has_room(self.depth_s, now, flight.own_s) and choice.node.spares(flight, flight.own_s, now)))
            and (flight.ends == inf or choice.node.in_time(flight, now))
        ):
            self.forward(flight, choice, now, actions)
        elif flight.waits:
            self.wait(flight, now)
        else:
            admission.withdrawn(flight, now)
            return Outcome.REFUSED_FULL
        return None

    def leaves(self, flight: Flight, now: float) -> int:
        return self.admission.leaves(flight, now) if flight.lane.claims else 0

    def choose(self, flight: Flight, tokens: int, leaves: int, now: float, hint: Node | None = None) -> Choice | None:
        """The router's choice among nodes with memory for `tokens`, and `leaves` more that it leaves to others."""
        choice = self.router.choose(flight, flight.lane.nodes, tokens + leaves, self.knobs, now, hint)
        if choice is not None:
            choice.kv_tokens = tokens
        return choice

    def why(self, flight: Flight, now: float) -> tuple[float, float, float, float]:
        left_s = flight.due - now if flight.due < inf else -1.0
        return now - flight.arrived, flight.own_s, left_s, float(flight.lane.queue.size)

    def _set_depth(self) -> None:
        """How much may wait in a node for its next step: a step cannot be called back, so urgent work waits for one to end."""
        self.depth_s = min(self.knobs.depth_s, NEXT_STEP * self.tightest_s)

    def _weigh(self, flight: Flight, now: float) -> None:
        """Who pays for it, and how much it will be."""
        if self.fair and flight.account is None:
            charge.enter(self.books, flight, self.flights.values(), now)
        if flight.account is not None or self.weighs:
            request = flight.request
            known = capped(flight.length.mean, request.max_tokens)
            flight.output = known or min(GUESS_OUTPUT, request.max_tokens or GUESS_OUTPUT)
            if flight.account is not None and not flight.attempt:
                charge.asked(flight)

    def set_deadline(self, flight: Flight) -> None:
        task, request = flight.task, flight.request
        if task.patient or request.patient:
            flight.due = inf
            return
        # `TaskClass.first_s`, for every request.
        flight.due = flight.arrived + (task.ttft_s + task.ttft_s_per_token * request.prompt_tokens)
        if task.total_s < inf and not flight.lane.learned():
            decode_s = capped(flight.length.mean, request.max_tokens) * flight.lane.nodes[0].steps.itl_s
            flight.due = min(flight.due, flight.arrived + task.total_s - decode_s)

    def kv_tokens(self, flight: Flight) -> int:
        request, high = flight.request, flight.length.high
        quota = flight.quota = request.max_tokens if 0 < request.max_tokens < high else int(high)
        return request.prompt_tokens + quota

    def wait(self, flight: Flight, now: float) -> None:
        if flight.form is not None:
            # Counted from when its answer broke off, see `Resume`.
            pass
        elif flight.patient:
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

    def forward(self, flight: Flight, choice: Choice, now: float, actions: list[Action]) -> None:
        node, request, uncached = choice.node, flight.request, choice.uncached
        flight.node, flight.uncached, flight.forwarded = node, uncached, now
        flight.ready_at = now + choice.ready_s
        flight.attempt += 1
        node.give(flight, choice.kv_tokens, now)
        if flight.priority > self.lowest and request.stream and self.way.urgent(flight):
            node.urgent[request.id] = flight
        if flight.account is not None or self.weighs:
            charge.dispatched(self.books, flight, len(self.nodes), now)
            flight.owed = flight.lane.queue.floors.owes(flight.task.name, flight.priority)
            flight.lane.queue.dispatched(flight, charge.cost(flight), now)
            self.admission.served(flight, now)
        flight.lane.drain.forwarded(flight, now)
        if request.blocks:
            self.prefixes.insert(node.index, request.blocks)
        if self.router.remembers:
            self.sessions.served(request, node.index)
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

    def reject(self, flight: Flight, outcome: Outcome, now: float, actions: list[Action]) -> None:
        del self.flights[flight.request.id]
        if flight.account is not None:
            self.books.leave(flight.account)
        actions.append(Reject(flight.request.id, outcome, self.admission.retry_after_s(flight, now, outcome), self.why(flight, now)))

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
            self.leave(flight)
            return None
        succeeded = event.status < 400
        if succeeded:
            request, task, tokens, model = flight.request, flight.task, event.output_tokens, flight.lane.model
            node.learn_end(flight, now)
            if node.concurrency is not None and node.concurrency.rules:
                self.answers.learn((model, task.name), now - flight.forwarded, node.concurrency.recent_s)
            own = tokens - flight.emitted
            if flight.first >= 0 and own >= PACED_TOKENS and task.tpot_s == node.tpot_s < inf and request.stream:
                node.learn_aim((now - flight.first) / (own - 1))
            if tokens > 0:
                # What an engine says is input: no answer is longer than the caller allowed, or than any engine writes.
                most, before = (request.max_tokens and request.max_tokens + flight.emitted) or MOST, flight.counted
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
        charge.settle(self.books, flight, event.emitted_tokens - flight.emitted if event.form else -1, now)
        node = self._fail_on(flight, event.failure, now)
        # A node that is learned to be full by trying it says so now and then: that must not use up the budget of retries.
        cost = BUSY_COST if event.failure is Failure.BUSY and node.concurrency is not None and node.concurrency.rules else 1.0
        shown = flight.first >= 0.0
        flight.node, flight.first = None, -1.0
        if event.started:
            if event.form is None or not self.resume.again(flight, event, node, shown, now):
                self.reject(flight, Outcome.FAILED, now, actions)
        elif flight.due < now or self.retries < cost or all(flight.tried & other.bit for other in flight.lane.nodes):
            self.climb.walk(flight, Outcome.FAILED, now, actions)
        else:
            self.retries -= cost
            if flight.waits:
                self.wait(flight, now)
            elif self.begin(flight, now, actions) is not None:
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
            self.leave(flight)
            if not flight.lane.queue.size:
                flight.lane.drain.waits(False, now)
            return None
        for one in (flight, flight.twin):
            if one is not None and one.node is not None:
                one.node.take_back(one, now)
                actions.append(Cancel(event.id, one.node.name))
        return node

    def leave(self, flight: Flight) -> None:
        if flight.claim is not None:
            flight.claim.memory.let_go()
            flight.claim = None
        if flight.waiting:
            flight.lane.queue.remove(flight)
            flight.lane.turnouts.drop((flight.priority, flight.request.tenant))
            self.waiting -= 1

    def _tick(self, event: Tick, now: float, actions: list[Action]) -> None:
        """Time alone: the dispatch pass does the rest."""

    def _knobs_set(self, event: KnobsSet, now: float, actions: list[Action]) -> None:
        self.knobs = self.admission.knobs = event.knobs
        self.books.flood.slower = event.knobs.slower
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
        self.books.flood.slower = self.knobs.slower
        self.admission = Admission(config.policy, self.knobs, self.rng, self.books, self.answers)
        self.router = Router(config.policy, self.prefixes, self.rng, self.books, self.sessions)
        self.roster.configure(now, [] if actions is None else actions)
