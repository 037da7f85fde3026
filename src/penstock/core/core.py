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
from penstock.core.fleet import Node, nodes_of
from penstock.core.flight import Flight
from penstock.core.lane import ANY, Lane, served
from penstock.core.predict import Lengths
from penstock.core.prefix import PrefixIndex
from penstock.core.route import Choice, Router
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
        self.deadline = inf
        self.prefixes = PrefixIndex()
        self._numbered = 0
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
        if self.waiting:
            self._dispatch(now, actions, hint)
        else:
            self.deadline = inf
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
        most = request.max_priority
        flight = Flight(request, task, lane, now, priority=task.priority if task.priority < most else most)
        self.flights[request.id] = flight
        if self.retries < RETRIES_KEPT:
            self.retries += self.knobs.retry_share
        self._set_deadline(flight)
        tokens = self._kv_tokens(flight)
        choice = self.router.choose(flight, lane.nodes, tokens, self.knobs, now)
        self.admission.estimate(flight, choice)
        flight.key = self.order.key(flight)
        refusal = self.admission.refusal(flight, choice, now)
        if refusal is not None:
            self._reject(flight, refusal, now, actions)
        elif choice is not None and not lane.queue.size and choice.node.has_room(self.knobs.depth_s, now, flight.own_s):
            self._forward(flight, choice, now, actions)
        else:
            self._wait(flight, now)

    def _set_deadline(self, flight: Flight) -> None:
        task, request = flight.task, flight.request
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
        else:
            flight.expires = min(flight.due, now + UNAVAILABLE_WAIT_S)
        flight.lane.queue.push(flight)
        self.waiting += 1

    def _forward(self, flight: Flight, choice: Choice, now: float, actions: list[Action]) -> None:
        node, request = choice.node, flight.request
        flight.node, flight.uncached, flight.forwarded = node, choice.uncached, now
        flight.attempt += 1
        node.give(flight, choice.kv_tokens, now)
        if request.blocks:
            self.prefixes.insert(node.index, request.blocks)
        why = (now - flight.arrived, choice.ready_s, float(request.prompt_tokens - choice.uncached), choice.score, float(flight.attempt))
        actions.append(Forward(request.id, node.name, why))

    def _reject(self, flight: Flight, outcome: Outcome, now: float, actions: list[Action]) -> None:
        del self.flights[flight.request.id]
        left_s = flight.due - now if flight.due < inf else -1.0
        why = (now - flight.arrived, flight.own_s, left_s, float(flight.lane.queue.size))
        actions.append(Reject(flight.request.id, outcome, self.admission.retry_after_s(flight, now), why))

    def _first_token(self, event: FirstToken, now: float, actions: list[Action]) -> Node | None:
        flight = self.flights.get(event.id)
        if flight is None or flight.node is None or flight.first >= 0 or not flight.request.stream:
            return None
        flight.node.first_token(flight, now)
        flight.first = now
        return flight.node

    def _finished(self, event: Finished, now: float, actions: list[Action]) -> Node | None:
        flight = self.flights.pop(event.id, None)
        if flight is None:
            return None
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
        node = flight.node
        node.take_back(flight, now)
        node.breaker.note(result_of(event.failure), now, self.knobs)
        node.watch()
        if event.failure is Failure.BUSY:
            node.limit = max(1.0, float(node.running))
            node.free_at = max(node.free_at, now + BUSY_PAUSE_S)
        else:
            flight.tried |= node.bit
        flight.node, flight.first = None, -1.0
        if event.started or flight.due < now or self.retries < 1 or all(flight.tried & other.bit for other in flight.lane.nodes):
            self._reject(flight, Outcome.FAILED, now, actions)
        else:
            self.retries -= 1
            self._wait(flight, now)
        return node

    def _cancelled(self, event: Cancelled, now: float, actions: list[Action]) -> Node | None:
        flight = self.flights.pop(event.id, None)
        if flight is None:
            return None
        node = flight.node
        if node is None:
            self._leave(flight)
            return None
        node.take_back(flight, now)
        actions.append(Cancel(event.id, node.name))
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
                self._reject(expired, Outcome.EXPIRED if up else Outcome.UNAVAILABLE, now, actions)
            self._assign(lane, now, actions, hint)
            if queue.size:
                wake = min(wake, queue.next_expiry(), self._opening(lane, now))
            else:
                lane.drained_at = 0.0
        self.deadline = wake

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
                self._reject(flight, Outcome.EXPIRED, now, actions)
            elif choice.node.has_room(knobs.depth_s, now, choice.uncached * choice.node.token_s):
                self._leave(flight)
                lane.drained(now)
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
                heir = self.lanes.get(flight.request.model) or self.lanes.get(ANY)
                if heir is None:
                    self._reject(flight, Outcome.UNAVAILABLE, now, actions)
                else:
                    flight.lane = heir
                    self._wait(flight, now)
