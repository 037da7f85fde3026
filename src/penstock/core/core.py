"""The core: one state, changed by events, answering with actions.

After every event one synchronous, idempotent dispatch pass: expire, then assign. Nothing waits for a wake-up that can be
lost, and a pass looks at a bounded number of queue heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from random import Random
from typing import Any

from penstock.config import Config
from penstock.core.admission import Admission
from penstock.core.breaker import Result, result_of
from penstock.core.classify import Classifier
from penstock.core.climb import Climb
from penstock.core.fleet import Node, nodes_of
from penstock.core.flight import SPARE_S, Flight
from penstock.core.ladder import Ladders
from penstock.core.lane import ANY, Lane, served
from penstock.core.predict import Lengths
from penstock.core.prefix import PrefixIndex
from penstock.core.route import Choice, Router
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
from penstock.policy.views import Order

PREFIX_BLOCKS = 65_536
"""Blocks believed cached on a node that does not say how much it holds: 32 M tokens; an index entry costs about 150 bytes."""
UNAVAILABLE_WAIT_S = 5.0
"""How long a request waits for a node while none is up: an engine that restarts at once is never noticed."""
BUSY_PAUSE_S = 0.25
"""A node that answered "busy" is given nothing for this long."""
HIGHEST = 5
RETRIES_KEPT = 10.0
"""Unused retries are kept up to this many."""


class Core:
    """`config` must have passed the checks of its loader; `profiles` are those that its nodes name."""

    def __init__(self, config: Config, knobs: Knobs, rng: Random, profiles: Mapping[str, Profile] | None = None) -> None:
        self.rng, self.knobs, self.profiles = rng, knobs, profiles or {}
        self.flights: dict[int, Flight] = {}
        self.lengths = Lengths()
        self.nodes: list[Node] = []
        self.lanes: dict[str, Lane] = {}
        self.waiting = 0
        self.retries = RETRIES_KEPT
        self.lowest = HIGHEST
        """Lowest priority that any request had: for it nobody is called back."""
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
        ahead, ahead_s = flight.lane.queue.ahead(flight.priority, flight.key)
        return max(1, ahead), self.admission.wait_s(flight.lane, max(0, ahead - 1), ahead_s, now)

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
        task = self.classify(request)
        ladder, most = self.ladders.of(request, task.name), request.max_priority
        priority = task.priority if task.priority < most else most
        flight = Flight(request, task, lane, now, ladder, request.model, ladder.waits or request.patient, priority=priority)
        self.flights[request.id] = flight
        if priority < self.lowest:
            self.lowest = priority
        if self.retries < RETRIES_KEPT:
            self.retries += self.knobs.retry_share
        self._set_deadline(flight)
        for name, rung in ladder.eager:
            if rung.step(flight, self.ladders.around) is not None:
                self.climb.divert(flight, name, now, actions)
                return
        refusal = self._place(flight, now, actions)
        if refusal is not None:
            self.climb.walk(flight, refusal, now, actions)

    def _place(self, flight: Flight, now: float, actions: list[Action]) -> Outcome | None:
        """Start it on its lane's nodes, or have it wait for them where it may; else the outcome to refuse it with."""
        lane = flight.lane
        tokens = self._kv_tokens(flight)
        choice = self.router.choose(flight, lane.nodes, tokens, self.knobs, now)
        self.admission.estimate(flight, choice)
        flight.key = self.order.key(flight)
        refusal = self.admission.refusal(flight, choice, now)
        if refusal is not None:
            return self.way.make(flight, refusal, now, actions) if self.knobs.preempt and flight.priority > self.lowest else refusal
        if choice is not None and not lane.queue.size and choice.node.has_room(self.knobs.depth_s, now, flight.own_s):
            self._forward(flight, choice, now, actions)
        elif flight.waits:
            self._wait(flight, now)
        else:
            lane.bands.withdrawn(flight.request.prompt_tokens)
            return Outcome.REFUSED_FULL
        return None

    def _why(self, flight: Flight, now: float) -> tuple[float, float, float, float]:
        left_s = flight.due - now if flight.due < inf else -1.0
        return now - flight.arrived, flight.own_s, left_s, float(flight.lane.queue.size)

    # -- its way

    def _set_deadline(self, flight: Flight) -> None:
        task, request = flight.task, flight.request
        flight.due = inf
        if task.patient or request.patient:
            return
        if task.ttft_s < inf:
            flight.due = flight.arrived + task.first_s(request.prompt_tokens)
        if task.total_s < inf:
            decode_s = self.lengths.mean((flight.lane.model, task.name), request.max_tokens) * flight.lane.nodes[0].steps.itl_s
            flight.due = min(flight.due, flight.arrived + task.total_s - decode_s)

    def _kv_tokens(self, flight: Flight) -> int:
        request = flight.request
        return request.prompt_tokens + self.lengths.high((flight.lane.model, flight.task.name), request.max_tokens)

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
        flight.lane.queue.push(flight)
        self.waiting += 1

    def _forward(self, flight: Flight, choice: Choice, now: float, actions: list[Action]) -> None:
        node, request = choice.node, flight.request
        flight.node, flight.uncached, flight.forwarded = node, choice.uncached, now
        flight.attempt += 1
        node.give(flight, choice.kv_tokens, now)
        if request.blocks:
            self.prefixes.insert(node.index, request.blocks)
        knobs = self.knobs
        if knobs.hedge_share:
            hedges = self.second.hedges
            hedges.spare_tokens += knobs.hedge_share * choice.kv_tokens
            if flight.due < inf and len(flight.lane.nodes) > 1:
                overdue = now + choice.ready_s * (1.0 + knobs.margin) + SPARE_S
                if not request.stream:
                    overdue += self.second.whole_s(flight, node)
                last = flight.due - node.base_s - flight.own_s - SPARE_S
                hedges.watch(flight, overdue if overdue > last else last, self.flights)
        why = (now - flight.arrived, choice.ready_s, float(request.prompt_tokens - choice.uncached), choice.score, float(flight.attempt))
        model = "" if flight.model == request.model else flight.model
        actions.append(Forward(request.id, node.name, why, model, flight.taken))

    def _reject(self, flight: Flight, outcome: Outcome, now: float, actions: list[Action]) -> None:
        del self.flights[flight.request.id]
        actions.append(Reject(flight.request.id, outcome, self.admission.retry_after_s(flight, now), self._why(flight, now)))

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
        if node is None:
            self._leave(flight)
            return None
        succeeded = event.status < 400
        if succeeded:
            if not flight.request.stream:
                node.learn_whole(flight, now)
            self._learn_answer(flight, node, event)
        node.take_back(flight, now)
        if node.breaker.count or node.guarded:
            node.breaker.note(Result.SUCCESS if succeeded else Result.NEUTRAL, now, self.knobs)
            node.watch()
        if node.limit < node.max_running:
            node.limit = min(node.limit + 1 / node.limit, node.max_running)
        return node

    def _learn_answer(self, flight: Flight, node: Node, event: Finished) -> None:
        if event.output_tokens > 0:
            self.lengths.learn((flight.lane.model, flight.task.name), event.output_tokens)
        if event.cached_tokens >= 0 and flight.request.blocks:
            expected = flight.request.prompt_tokens - flight.uncached
            self.prefixes.correct(node.index, expected // BLOCK_TOKENS, event.cached_tokens // BLOCK_TOKENS)

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
        node = self._fail_on(flight, event.failure, now)
        flight.node, flight.first = None, -1.0
        if event.started:
            self._reject(flight, Outcome.FAILED, now, actions)
        elif flight.due < now or self.retries < 1 or all(flight.tried & other.bit for other in flight.lane.nodes):
            self.climb.walk(flight, Outcome.FAILED, now, actions)
        else:
            self.retries -= 1
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
            node.limit = max(1.0, float(node.running))
            node.free_at = max(node.free_at, now + BUSY_PAUSE_S)
        else:
            flight.tried |= node.bit
        return node

    def _cancelled(self, event: Cancelled, now: float, actions: list[Action]) -> Node | None:
        flight = self.flights.pop(event.id, None)
        if flight is None:
            return None
        node = flight.node
        if node is None:
            self._leave(flight)
            return None
        for one in (flight, flight.twin):
            if one is not None and one.node is not None:
                one.node.take_back(one, now)
                actions.append(Cancel(event.id, one.node.name))
        return node

    def _leave(self, flight: Flight) -> None:
        if flight.waiting:
            flight.lane.queue.remove(flight)
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
                lane.bands.withdrawn(expired.request.prompt_tokens)
                up = any(node.state == "up" for node in lane.nodes)
                self.climb.turn(expired, Outcome.EXPIRED if up else Outcome.UNAVAILABLE, now, actions)
            if self.knobs.preempt:
                self.way.rescue(lane, now, actions)
            self._assign(lane, now, actions, hint)
            if queue.size:
                wake = min(wake, queue.next_expiry(), self._opening(lane, now))
            else:
                lane.drained_at = 0.0
        self._wake = wake
        self.way.set_alarm()
        if self.climb.turned or self.way.stirred:
            turned, self.climb.turned, self.way.stirred = self.climb.turned, [], False
            for flight, outcome in turned:
                self.climb.walk(flight, outcome, now, actions)
            self._dispatch(now, actions, hint)

    def _opening(self, lane: Lane, now: float) -> float:
        """When the next of the lane's nodes has room again; nodes late already are waited for by events, not by the clock."""
        depth_s = self.knobs.depth_s
        if len(lane.nodes) > 64:
            return now + depth_s
        times = [time for node in lane.nodes for time in (*node.opens_at(depth_s), node.breaker.reopens)]
        return min((time for time in times if time > now), default=inf)

    def _assign(self, lane: Lane, now: float, actions: list[Action], hint: Node | None) -> None:
        """Give waiting heads to nodes with room. A head that does best to wait for a node lays claim to it for this pass."""
        queue, knobs = lane.queue, self.knobs
        if len(lane.nodes) <= 64 and not any(node.has_room(knobs.depth_s, now) for node in lane.nodes):
            return
        skipped: list[Flight] = []
        claims: list[tuple[Node, float]] = []
        lane.blocked = False
        while len(skipped) < knobs.scan and (flight := queue.pop()) is not None:
            tokens = self._kv_tokens(flight)
            choice = self.router.choose(flight, lane.nodes, tokens, knobs, now, hint)
            if choice is None:
                lane.blocked = True
                skipped.append(flight)
                if not flight.tried:
                    break
            elif now + choice.ready_s > flight.due:
                self._leave(flight)
                lane.bands.withdrawn(flight.request.prompt_tokens)
                self.climb.turn(flight, Outcome.EXPIRED, now, actions)
            elif choice.node.has_room(knobs.depth_s, now, choice.uncached * choice.node.token_s) and (
                # Who was called back goes again when nothing is ahead of it, not to be in somebody's way at once.
                not flight.recalls or choice.node.free_at <= now
            ):
                self._leave(flight)
                lane.drained(now)
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

    def _node_seen(self, event: NodeSeen, now: float, actions: list[Action]) -> Node | None:
        node = self._node(event.node)
        if node is None:
            return None
        node.reported, node.reported_at = event.signals, now
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
        for node in self.nodes:
            node.size_memory(event.knobs)

    def _config_replaced(self, event: ConfigReplaced, now: float, actions: list[Action]) -> None:
        self._configure(event.config, now, actions)

    def _configure(self, config: Config, now: float = 0.0, actions: list[Action] | None = None) -> None:
        self.config = config
        self.classify = Classifier(config.classes)
        self.ladders = Ladders(config)
        self.order: Order = find(ORDER, config.policy.order, "policy.order")
        self.admission = Admission(config.policy, self.knobs, self.rng)
        self.router = Router(config.policy, self.prefixes, self.rng)
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
