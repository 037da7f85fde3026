"""The heap driver: the live gateway's Core over modelled engines, on a virtual clock.

It does what the live driver does and shows the core what the wire shows: arrivals, first tokens, ends with their usage,
probes each `probe_s`, decode progress each second. Network and gateway take no time here. An answer's length is never shown
before it ended. At equal times outcomes come first, then faults, probes, the core's own tick, and arrivals last.

Two runs with the same arrivals, nodes, preset, faults and seed are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from math import floor, inf
from random import Random

import msgspec

from penstock.config import Class, Config, Node
from penstock.core import Core
from penstock.core.condition import DIFFICULTY, metadata_read
from penstock.engine import sequence as engine
from penstock.events import (
    Action,
    Arrived,
    Cancel,
    Cancelled,
    Divert,
    Event,
    Failed,
    Finished,
    FirstToken,
    Forward,
    Hedge,
    NodeLost,
    NodeSeen,
    Progress,
    Recall,
    Tick,
)
from penstock.facts import Failure, Form, Outcome, Profile, Request
from penstock.sim.arrival import Arrival
from penstock.sim.entry import Turn
from penstock.sim.faults import Fault
from penstock.sim.machine import Machine
from penstock.sim.pools import stand_in
from penstock.sim.presets import Preset
from penstock.sim.setting import PLAIN, Setting
from penstock.sim.slo import Slo
from penstock.wire.difficulty import graded

BEAT_S = 1.0
"""Seconds between probes, and between reports of decode progress, as in the live driver."""
IDLE_S = 3600.0
"""When nothing but probes has happened for this long, what still waits never ends."""
TICK_S = 1e-4
"""Least time between ticks: the live driver's timers are no finer."""
WATCH_EVERY = 256
REFUSED = frozenset({Outcome.REFUSED_FULL, Outcome.REFUSED_DEADLINE, Outcome.EXPIRED, Outcome.UNAVAILABLE})


class Trip(msgspec.Struct, gc=False):
    """What became of one request. Times are the world's; -1 where it did not come to that."""

    arrival: Arrival
    outcome: Outcome | None = None
    node: int = -1
    first_at: float = -1.0
    ended_at: float = -1.0
    cached_tokens: int = -1
    """Of the prompt, found in the node's cache; -1 when it never ran."""
    second: int = -1
    """A second node that it is on, until one of the two is the first."""
    first_on: int = -1
    """The node that showed its first token."""
    emitted: int = 0
    """Tokens that were written before it broke off on a node and went on elsewhere."""

    def forget(self) -> None:
        """It starts again elsewhere."""
        self.first_at, self.first_on, self.cached_tokens = -1.0, -1, -1


class MemoryUse(msgspec.Struct):
    """KV memory of all nodes, summed over the seconds in which requests waited for memory."""

    seconds: int = 0
    tokens: int = 0
    reserved: int = 0
    used: int = 0
    """By the engines' own account."""
    rounding: int = 0
    """Reserved only because pages are whole."""


class World:
    """One simulation, to be run to its end; with `add` it goes on from there."""

    def __init__(
        self,
        arrivals: Sequence[Arrival],
        fleet: Sequence[Profile],
        preset: Preset,
        slo: Slo,
        faults: Sequence[Fault] = (),
        seed: int = 0,
        setting: Setting = PLAIN,
    ) -> None:
        """Nodes are named n0, n1, ... in the fleet's order."""
        self.preset, self.faults, self.setting = preset, faults, setting
        nodes = list(zip(names(len(fleet)), fleet, strict=True))
        self.machines = [Machine(index, name, profile) for index, (name, profile) in enumerate(nodes)]
        self.trips = [Trip(arrival) for arrival in arrivals]
        known = setting.config or Config()
        self.aliases = known.aliases
        self.graded = DIFFICULTY in metadata_read((*known.classes, *known.pools))
        self.caps = {key.name: key.max_priority for key in known.keys}
        models = tuple(dict.fromkeys(self.aliases.get(arrival.model, arrival.model) for arrival in arrivals))
        config = configuration(preset, nodes, models, slo, setting.config)
        profiles = {profile.name: profile for _, profile in nodes}
        self.core = Core(config, config.knobs, Random(seed), profiles)
        self.now = 0.0
        self.ended = 0
        self.busy: list[tuple[float, float]] = []
        """At each beat: the time, and the seconds that all nodes have computed until then."""
        self._arrived = self._looked_at = 0
        """Requests that came in, and those of them whose callers' patience has been looked at."""
        self._turn = Turn(setting.entry)
        self._by_name = {machine.name: machine for machine in self.machines}
        self._heap: list[tuple[float, int]] = []
        self._due = [inf] * len(self.machines)
        """Each machine's deadline; an entry of the heap that differs from it is stale."""
        self._pending: list[Event] = []
        self.memory = MemoryUse()
        self._broken, self._beat_at = 0, BEAT_S
        """Faults that have been, and when the next beat is."""

    def run(self, watch: Callable[[int], None] | None = None) -> None:
        """Until every request has ended. `watch` is told the number ended, now and then."""
        trips, faults = self.trips, self.faults
        fault, entry = self._broken, self._turn
        patience_s = self.setting.patience_s
        beat_at, scrape_at, ticked_at, stirred_at = self._beat_at, inf, -inf, self.now
        scrape_s = self.preset.scrape_s
        arrival_at = entry.take(trips[self._arrived].arrival.at_s) if self._arrived < len(trips) else inf
        if scrape_s and arrival_at < inf:
            scrape_at = floor(arrival_at / scrape_s) * scrape_s
        while self.ended < len(trips):
            engine_at = self._engine_at()
            fault_at = faults[fault].at_s if fault < len(faults) else inf
            tick_at = max(self.core.deadline, ticked_at + TICK_S)
            leave_at = self._leave_at(patience_s) if patience_s < inf else inf
            now = min(engine_at, fault_at, beat_at, scrape_at, tick_at, arrival_at, leave_at)
            now = self.now = max(now, self.now)
            if engine_at <= now:
                self._outcomes(now)
            elif fault_at <= now:
                self._break(faults[fault], now)
                fault += 1
            elif beat_at <= now:
                self._beat(now)
                beat_at += BEAT_S
                if now - stirred_at > IDLE_S and arrival_at == inf:
                    self._abandon(now)
                continue
            elif scrape_at <= now:
                self._probe(now)
                scrape_at = inf
            elif tick_at <= now:
                ticked_at = now
                self._tell(Tick(), now)
                continue
            elif leave_at <= now:
                self._hang_up(now)
            else:
                arrived = self._arrived
                self._arrive(arrived, now)
                arrived = self._arrived = arrived + 1
                arrival_at = entry.take(trips[arrived].arrival.at_s) if arrived < len(trips) else inf
                if scrape_s and arrival_at < inf and floor(arrival_at / scrape_s) > floor(now / scrape_s):
                    scrape_at = floor(arrival_at / scrape_s) * scrape_s
                if watch is not None and not arrived % WATCH_EVERY:
                    watch(self.ended)
            stirred_at = now
        self._broken, self._beat_at = fault, beat_at
        if watch is not None:
            watch(self.ended)

    def add(self, arrivals: Sequence[Arrival]) -> None:
        """More requests, none of which comes before what has ended by now: `run` goes on with them."""
        self.trips += [Trip(arrival) for arrival in arrivals]

    # -- engines

    def _engine_at(self) -> float:
        heap, due = self._heap, self._due
        while heap and heap[0][0] != due[heap[0][1]]:
            heappop(heap)
        return heap[0][0] if heap else inf

    def _watch_engine(self, machine: Machine) -> None:
        at = machine.deadline()
        if at != self._due[machine.index]:
            self._due[machine.index] = at
            if at < inf:
                heappush(self._heap, (at, machine.index))

    def _outcomes(self, now: float) -> None:
        machine = self.machines[heappop(self._heap)[1]]
        self._due[machine.index] = -1.0
        for outcome in machine.advance(now):
            trip = self.trips[outcome.id]
            if isinstance(outcome, engine.Started):
                shown = self.preset.streams and trip.arrival.stream
                if trip.first_at < 0 or (not shown and trip.second < 0):
                    trip.first_at, trip.first_on, trip.cached_tokens = now, machine.index, outcome.cached_tokens
                if shown:
                    self._tell(FirstToken(outcome.id, self._named(trip, machine)), now)
                    trip.node, trip.second = machine.index, -1
            else:
                del machine.flying[outcome.id]
                arrival = trip.arrival
                # A sequence that could never fit is refused by the engine: a 4xx answer on the wire.
                self._end(trip, Outcome.FAILED if outcome.refused else Outcome.COMPLETED, now)
                status = 400 if outcome.refused else 200
                self._tell(
                    Finished(
                        outcome.id,
                        status,
                        arrival.prompt_tokens,
                        trip.cached_tokens,
                        outcome.output_tokens + trip.emitted or -1,
                        self._named(trip, machine),
                    ),
                    now,
                )
                trip.node = machine.index
        self._watch_engine(machine)

    # -- the core

    def _arrive(self, id: int, now: float) -> None:
        most = self.setting.entry.most
        if most is not None and self._arrived - self.ended >= most:
            self._end(self.trips[id], Outcome.REFUSED_FULL, now)
        else:
            self._tell(Arrived(self.request(id)), now)

    def request(self, id: int) -> Request:
        """What the wire shows of a request."""
        arrival, preset = self.trips[id].arrival, self.preset
        return Request(
            id=id,
            model=self.aliases.get(arrival.model, arrival.model),
            tenant=arrival.tenant,
            prompt_tokens=arrival.prompt_tokens,
            max_tokens=arrival.max_tokens,
            stream=arrival.stream and preset.streams,
            blocks=() if preset.blind else arrival.blocks,
            session=arrival.session,
            max_priority=self.caps.get(arrival.tenant, 5),
            metadata=arrival.metadata,
            ticket=True,
            difficulty=graded(arrival.metadata.get(DIFFICULTY), arrival.prompt_tokens, arrival.max_tokens) if self.graded else 0.0,
        )

    def _leave_at(self, patience_s: float) -> float:
        """When the next caller without a whole answer hangs up."""
        trips, at = self.trips, self._looked_at
        while at < self._arrived and trips[at].outcome is not None:
            at += 1
        self._looked_at = at
        return trips[at].arrival.at_s + patience_s if at < self._arrived else inf

    def _hang_up(self, now: float) -> None:
        id = self._looked_at
        self._end(self.trips[id], Outcome.CANCELLED, now)
        self._tell(Cancelled(id), now)

    def _tell(self, event: Event, now: float) -> None:
        """Give the core an event and do what it says. What that leads to at once, such as a refused connection, follows."""
        pending = self._pending
        pending.append(event)
        if len(pending) > 1:
            return
        at = 0
        while at < len(pending):
            for action in self.core.handle(pending[at], now):
                self._do(action, now)
            at += 1
        pending.clear()

    def _do(self, action: Action, now: float) -> None:
        trip = self.trips[action.id]
        if isinstance(action, Forward):
            machine = self._by_name[action.node]
            trip.node = machine.index
            self._submit(machine, action.id, trip, now)
        elif isinstance(action, Cancel):
            machine = self._by_name[action.node]
            machine.cancel(action.id, now)
            self._watch_engine(machine)
        elif isinstance(action, Recall):
            machine = self._by_name[action.node]
            machine.cancel(action.id, now)
            self._watch_engine(machine)
            trip.forget()
        elif isinstance(action, Hedge):
            machine = self._by_name[action.node]
            trip.second = machine.index
            self._submit(machine, action.id, trip, now)
        elif isinstance(action, Divert):
            self._end(trip, Outcome.DIVERTED, now)
        else:
            self._end(trip, action.outcome, now)

    def _submit(self, machine: Machine, id: int, trip: Trip, now: float) -> None:
        if machine.alive:
            arrival, emitted = trip.arrival, trip.emitted
            machine.submit(
                engine.Sequence(id, arrival.prompt_tokens + emitted, max(1, arrival.output_tokens - emitted), arrival.blocks), now
            )
            self._watch_engine(machine)
        else:
            form = Form.CHAT if trip.emitted else None
            self._tell(Failed(id, Failure.CONNECT, form is not None, self._named(trip, machine), form, trip.emitted), now)

    def _named(self, trip: Trip, machine: Machine) -> str:
        """The node's name as events carry it: where a request is on two."""
        return machine.name if trip.second >= 0 else ""

    def _end(self, trip: Trip, outcome: Outcome, now: float) -> None:
        assert trip.outcome is None, "a request ended twice"
        trip.outcome, trip.ended_at = outcome, now
        if outcome is Outcome.FAILED:
            trip.forget()
        self.ended += 1

    def _abandon(self, now: float) -> None:
        """No node is left that could end what still waits."""
        for trip in self.trips:
            if trip.outcome is None:
                self._end(trip, Outcome.FAILED, now)

    # -- probes

    def _beat(self, now: float) -> None:
        self.busy.append((now, sum(machine.busy_s(now) for machine in self.machines)))
        if self.preset.streams:
            for machine in self.machines:
                if machine.alive and machine.flying:
                    tokens, stream_s = machine.decoding(now)
                    if stream_s > 0.0:
                        self._tell(Progress(machine.name, tokens, stream_s), now)
        self._look_at_memory()
        self._probe(now)

    def _look_at_memory(self) -> None:
        use = self.memory
        if not any(lane.blocked and lane.queue.size for lane in self.core.by_pool.values()):
            return
        for node, machine in zip(self.core.nodes, self.machines, strict=True):
            # A node whose slots are all taken waits for those.
            if machine.alive and node.running < node.limit and node.memory.capacity < inf:
                use.seconds += 1
                use.tokens += machine.profile.kv_tokens
                use.reserved += node.memory.promised()
                use.rounding += node.memory.reserved - node.memory.asked
                use.used += machine.engine.kv_used_tokens

    def _probe(self, now: float) -> None:
        for machine in self.machines:
            if machine.alive:
                machine.lost = False
                self._tell(NodeSeen(machine.name, machine.signals(now)), now)
            elif not machine.lost:
                machine.lost = True
                self._tell(NodeLost(machine.name), now)

    # -- faults

    def _break(self, fault: Fault, now: float) -> None:
        machine = self._by_name[fault.node]
        if fault.do in ("kill", "restart") and machine.alive:
            for id, tokens in machine.kill(now).items():
                self._lose(id, machine, tokens, now)
        if fault.do == "restart":
            machine.restart(now)
        elif fault.do == "slow":
            machine.pace(fault.factor, now)
        elif fault.do in ("mute", "unmute"):
            machine.mute = fault.do == "mute"
        self._watch_engine(machine)

    def _lose(self, id: int, machine: Machine, tokens: int, now: float) -> None:
        """A node died with a request of which it had written so much."""
        trip = self.trips[id]
        started = trip.first_at >= 0.0 and trip.arrival.stream
        seen = started and self.preset.streams
        if seen:
            trip.emitted += tokens
        elif trip.first_on in (-1, machine.index):
            trip.forget()
        form = Form.CHAT if seen else None
        self._tell(Failed(id, Failure.RESET, started, self._named(trip, machine), form, trip.emitted), now)
        trip.second = -1


def names(count: int) -> list[str]:
    return [f"n{index}" for index in range(count)]


def configuration(
    preset: Preset, nodes: Sequence[tuple[str, Profile]], models: tuple[str, ...], slo: Slo, given: Config | None = None
) -> Config:
    """What a gateway with this preset would be configured with. Baselines are told nothing of a node's inside."""
    fleet = tuple(preset.node(Node(name=name, url=f"http://{name}", models=models), profile) for name, profile in nodes)
    if given is not None and preset.configured:
        fleet, pools = stand_in(fleet, given)
        return Config(nodes=fleet, classes=given.classes, pools=pools, ladder=given.ladder, policy=given.policy, knobs=given.knobs)
    classes: tuple[Class, ...] = ()
    if preset.deadlines and slo.set:
        classes = (
            Class(
                name="slo",
                ttft_ms=None if slo.ttft_s is None else slo.ttft_s * 1e3,
                ttft_ms_per_1k=slo.ttft_per_1k_s * 1e3,
                tpot_ms=None if slo.tpot_s is None else slo.tpot_s * 1e3,
                ladder=preset.ladder,
            ),
        )
    return Config(
        nodes=fleet,
        classes=classes,
        policy=preset.policy,
        knobs=preset.knobs if preset.deadlines and slo.ttft_s is not None else preset.patient(),
    )
