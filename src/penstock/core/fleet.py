"""The nodes as the core sees them: what each was given, what it has learned of it, and whether it may be given more."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

import msgspec

from penstock import config
from penstock.core.breaker import Breaker, State
from penstock.core.concurrency import LATE_S, Concurrency
from penstock.core.flight import Flight
from penstock.core.memory import Memory
from penstock.core.predict import AIM, AIM_LEAST, AIM_MOST, LEAST_SHARE, MISSED, NARROW, Prefill, Steps
from penstock.facts import BLOCK_TOKENS, Form, NodeSnapshot, Profile, Request, Signals
from penstock.knobs import Knobs
from penstock.policy.views import MemoryView, NodeView

MAX_RUNNING = 256
"""Requests at once on a node that does not say how many it takes: vLLM's default `max_num_seqs`."""
LATE_PREFILLS = 4
"""A node late with a first token is given no more than this many prompts."""
IDLE_SHARE = 0.25
"""With less than this share of what it may have at once, a node has next to nothing to do."""
PACED = 0.75
"""A stream with less than this share of the time aimed at says nothing of how its node was paced."""
WHOLE = 16
"""JSON answers that are counted before their rate is judged: few would often be fast by chance."""
SLIPS, SLIP_LEARN = 4.0, 0.02
"""As TCP's retransmission timer has it (RFC 6298): the mean and four deviations."""
STALE_S = 5.0
FROZEN = 10
"""After as many equal reports of a long queue in a row it is no longer believed."""
REQUESTS_MOST = 1_000_000
SHORT_S = 0.15
"""Prefill of a stream without a deadline that says, when its first token is late, that there is a line inside the node."""
BUSY_PAUSE_S = 0.25
"""A node that answered "busy" is given nothing for this long."""
ENGINE_QUEUE = 5
"""A node that reports this many waiting requests has enough (llm-d's queue threshold)."""


def believable(signals: Signals) -> Signals:
    """Without what no engine can mean: NaN, negative or huge numbers."""
    usage, running, waiting = signals.kv_usage, signals.running, signals.waiting
    if usage is not None and not 0.0 <= usage <= 1.0:
        usage = None
    if running is not None and not 0 <= running <= REQUESTS_MOST:
        running = None
    if waiting is not None and not 0 <= waiting <= REQUESTS_MOST:
        waiting = None
    return Signals(
        running=running, waiting=waiting, kv_usage=usage, models=signals.models, engine=signals.engine, continues=signals.continues
    )  # fmt: skip


class Node(NodeView):
    """One engine. `free_at` is when it is predicted to be able to begin another prefill; `tpot_s` the time between tokens to keep."""

    __slots__ = (
        "aim",
        "alone_s",
        "bit",
        "bounded",
        "breaker",
        "busy_until",
        "concurrency",
        "config",
        "count",
        "count_per_s",
        "crowd_s",
        "guarded",
        "kv_tokens",
        "limit",
        "memory",
        "models",
        "pending_s",
        "pending_tokens",
        "prefill",
        "prefilled_tokens",
        "prefilling",
        "progress_at",
        "progress_tokens",
        "reported_at",
        "share",
        "shares_prefix",
        "slip_mean_s",
        "slip_over_s",
        "state",
        "steps",
        "told",
        "tpot_s",
        "unmoved",
        "urgent",
        "whole_began",
        "whole_count",
        "whole_tokens",
        "worth",
    )

    def __init__(self, index: int, node: config.Node, knobs: Knobs, profile: Profile | None) -> None:
        self.index, self.bit, self.name, self.config = index, 1 << index, node.name, node
        self.tag, self.capacity, self.cost, self.near = node.name.encode(), node.capacity, node.cost, 0.0
        self.models: tuple[str, ...] | None = node.models or None
        self.state = "up"
        self.breaker = Breaker()
        known = profile.max_sequences if profile else MAX_RUNNING
        self.max_running = node.max_running or known
        self.limit = float(self.max_running)
        self.concurrency = Concurrency(self.max_running) if node.max_running is None and profile is None else None
        """What is learned of a node that says neither what it is nor how much it takes at once."""
        self.answer_s = self.beside_s = 0.0
        """Of nodes of which only ends are seen: an answer's time, and what each request beside it adds."""
        self.kv_tokens = node.kv_tokens or (profile.kv_tokens if profile else None)
        self.bounded = self.kv_tokens is not None
        """Its memory's size is known."""
        self.memory = Memory()
        self.size_memory(knobs)
        self.shares_prefix = profile is None or not profile.cache_tokens
        self.prefill, self.steps = Prefill(profile), Steps(profile)
        self.base_s, self.token_s = self.prefill.base_s, self.prefill.token_s
        self.running = self.prefilling = 0
        self.pending_s = self.progress_tokens = 0.0
        self.pending_tokens = self.prefilled_tokens = 0
        self.tpot_s = inf
        self.busy_until = self.free_at = -inf
        self.slip_mean_s = self.slip_over_s = 0.0
        """How much later than predicted first tokens come, and how much more than that where it is more: running means."""
        self.share = 1.0
        self.aim = AIM
        self.alone_s = self.crowd_s = 0.0
        self.worth = 1.0
        self.learn_pace()
        self._restart_whole(0.0)
        self.guarded = False
        self.urgent: dict[int, Flight] = {}
        """Streams with a deadline, of more than the lowest priority, whose first tokens are not out."""
        self.progress_at = -inf
        self.count = self.count_per_s = 0.0
        self.reported, self.reported_at = Signals(), -inf
        self.told: int | None = None
        self.unmoved = 0

    def kv(self) -> MemoryView:
        return self.memory

    def size_memory(self, knobs: Knobs) -> None:
        self.memory.resize(inf if self.kv_tokens is None else self.kv_tokens * knobs.kv_share)
        self.memory.pool.sure, self.memory.pool.free = knobs.kv_sure, knobs.kv_free

    def watch(self) -> None:
        """Note whether more than slots and memory must be looked at before it is given work: `guarded`."""
        # What waits there of our own prefills was planned; only more than that says that the node is behind.
        unplanned = (self.reported.waiting or 0) - self.prefilling
        self.guarded = self.state != "up" or self.breaker.state is not State.CLOSED or unplanned >= ENGINE_QUEUE

    @property
    def works(self) -> bool:
        """Whether it is up and answers, however much it has to do."""
        return self.state == "up" and self.breaker.state is State.CLOSED

    def hear(self, signals: Signals, now: float) -> None:
        """A probe's answer: input. What cannot be is not believed, nor a long queue that never moves while the node works;
        our own counts are what is left then.
        """
        signals = believable(signals)
        self.unmoved = self.unmoved + 1 if signals.waiting == self.told and self.running else 0
        self.told = signals.waiting
        if self.unmoved >= FROZEN and (signals.waiting or 0) >= ENGINE_QUEUE:
            signals = msgspec.structs.replace(signals, waiting=None)
        self.reported, self.reported_at = signals, now

    def admits(self, now: float) -> bool:
        """Whether it is up, its breaker lets a request pass, and it has not just said that its own queue is long."""
        return (
            self.state == "up"
            and self.breaker.allows(self.running, now)
            and not ((self.reported.waiting or 0) >= ENGINE_QUEUE and now - self.reported_at < STALE_S and self.prefilling)
        )

    def continues(self, form: Form | None) -> bool:
        """Whether it can go on with an answer of which there is so much; any node can begin one."""
        return form is None or form in self.reported.continues

    def kv_need(self, tokens: int, hit: int, request: Request) -> int:
        """What more of its memory a request of `tokens` would take that finds `hit` tokens of its prompt cached."""
        if not hit or not self.shares_prefix:
            return tokens
        return tokens - BLOCK_TOKENS * self.memory.held_of(request.blocks, hit // BLOCK_TOKENS)

    def opens_at(self, depth_s: float) -> tuple[float, float]:
        """When its prefill backlog is short enough for another prompt, and when it has none."""
        return self.free_at - depth_s, self.free_at

    def has_room(self, depth_s: float, now: float, own_s: float = 0.0) -> bool:
        """Whether it may be given a request now that prefills for `own_s`.

        On a paced node pauses must reach the engine as pauses, so a long prompt waits until the last one's is over. Prompts
        shorter than `depth_s` are computed several in a step, and come to less than a pause together.
        """
        if self.prefilling >= LATE_PREFILLS and now > self.busy_until + depth_s:
            return False
        if self.share < 1.0 and own_s > depth_s:
            return self.free_at <= now
        return self.free_at - depth_s <= now

    def may_take(self, depth_s: float, now: float) -> bool:
        """Whether there may be requests that it has room for."""
        learned = self.concurrency
        return self.has_room(depth_s, now) or (learned is not None and learned.rules and self.running < self.limit)

    def spares(self, flight: Flight, own_s: float, now: float) -> bool:
        """Whether one more prompt makes nobody late of those of higher priority that wait there for their first tokens: an engine
        computes in one step what came before it began. What is owed to a floor goes all the same.
        """
        if not self.urgent or flight.lane.queue.floors.owes(flight.task.name, flight.priority):
            return True
        ahead_s = self.free_at - now
        # The plan runs on while a step does; what has shown nothing yet may all be computed together.
        after = now + (self.pending_s if self.pending_s > ahead_s else ahead_s) + own_s + self.base_s + self.slip_s
        return not any(now < other.due < after and other.priority > flight.priority for other in self.urgent.values())

    def give(self, flight: Flight, tokens: int, now: float) -> None:
        """A request was forwarded to it, with `flight.uncached` and `tokens` of KV memory reserved."""
        # Prompts that wait together are computed together: what each costs beyond its tokens is paid once.
        own_s = flight.own_s = flight.uncached * self.token_s + (self.base_s if self.busy_until <= now else 0.0)
        if not self.running:
            self._restart_whole(now)
        self.running += 1
        learned = self.concurrency
        if learned is not None:
            learned.gave(flight.request.stream, flight.task.total_s, self.running, now)
            if learned.rules:
                self.limit = learned.limit
            elif self.answer_s:
                self.answer_s = self.beside_s = 0.0
        memory = self.memory
        flight.shares = False
        if self.shares_prefix and self.bounded and flight.request.blocks:
            # Before memory is tight, what is counted twice does no harm, and counting blocks costs.
            if memory.tight:
                if memory.whole:
                    self._share(now)
                flight.shares = True
                memory.take(flight.request.blocks)
                tokens = max(0, tokens - BLOCK_TOKENS * len(flight.request.blocks))
            else:
                memory.whole += 1
        memory.reserve(flight.request.id, tokens)
        if self.busy_until <= now:
            self.busy_until = now
            if not self.prefilling:
                self.prefill.began(now)
        start = self.free_at if self.free_at > self.busy_until else self.busy_until
        self.busy_until += own_s
        flight.done_at = self.busy_until
        cost_s = own_s
        if self.tpot_s < inf:
            if now - self.progress_at < STALE_S:
                self._pace()
            else:
                # No stream has been seen of late whose token rate could suffer.
                self.share = 1.0
            cost_s = max(own_s, flight.uncached * self.token_s / self.share)
        self.free_at = start + cost_s
        if flight.request.stream:
            self.prefilling += 1
            self.pending_s += own_s
            self.pending_tokens += flight.uncached
        else:
            self.prefilled_tokens += flight.uncached
        if self.bounded:
            flight.clock, flight.counted = -1.0, 0
            flight.prompt_kv = max(0, tokens - flight.quota)
            memory.pool.add(flight, self.clock(now))
            if not flight.request.stream:
                memory.pool.began(flight, self.clock(flight.done_at))

    def _share(self, now: float) -> None:
        """Its memory became tight: of prompts that were counted whole, count blocks once for all that hold them."""
        memory = self.memory
        for flight in memory.pool.flights.values():
            blocks = flight.request.blocks
            if blocks and not flight.shares:
                flight.shares = True
                memory.take(blocks)
                flight.prompt_kv = max(0, flight.prompt_kv - BLOCK_TOKENS * len(blocks))
                memory.reserve(flight.request.id, flight.prompt_kv + flight.quota)
        memory.whole = 0
        memory.pool.refresh(self.clock(now), memory.pool.ready)

    @property
    def slip_s(self) -> float:
        """How much later than predicted a first token may come: a new prompt is not computed before the step in progress ends."""
        return max(0.0, self.slip_mean_s + SLIPS * self.slip_over_s)

    def slipped(self, late_s: float) -> None:
        """A first token came so much later than predicted."""
        over = late_s - self.slip_mean_s
        self.slip_mean_s += SLIP_LEARN * over
        self.slip_over_s += SLIP_LEARN * ((over if over > 0 else 0.0) - self.slip_over_s)

    def first_token(self, flight: Flight, now: float) -> None:
        if not flight.recalls:
            self.slipped(now - flight.ready_at)
        self.prefilled_tokens += flight.uncached
        self.prefill.first_token(flight.uncached, now)
        self.base_s, self.token_s = self.prefill.base_s, self.prefill.token_s
        self._prefilled(flight, now)
        if self.memory.capacity < inf:
            self.memory.pool.began(flight, self.clock(now))
        if self.concurrency is not None:
            if flight.due == inf and flight.own_s < SHORT_S:
                self.concurrency.late(now - flight.done_at > LATE_S, self.running, now)
            if self.concurrency.starting:
                self.concurrency.first_token(now - flight.forwarded, self.running)
            if self.concurrency.rules:
                self.limit = self.concurrency.limit

    def clock(self, now: float) -> float:
        """Tokens that each stream of the node was given, counted from any moment: all get one a step."""
        return self.count + (now - self.progress_at) * self.count_per_s if self.count_per_s else 0.0

    def _pace(self) -> None:
        """How much of the time it may prefill, as its streams stand now."""
        share = (1.0 - (self.alone_s + self.crowd_s * self.running)) * self.worth
        self.share = LEAST_SHARE if share < LEAST_SHARE else share if share < 1.0 else 1.0

    def learn_pace(self) -> None:
        """Take over what the engine's steps were learned to be, against the time between tokens to keep."""
        alone_s, crowd_s = self.steps.parts()
        self.alone_s, self.crowd_s = alone_s / (self.tpot_s * self.aim), crowd_s / (self.tpot_s * self.aim)
        self.worth = self.token_s / self.steps.token_s

    def learn_aim(self, tpot_s: float) -> None:
        """A stream ended with this mean time between tokens: aim so that a share of `MISSED` of those that were paced are late."""
        if tpot_s > self.tpot_s:
            self.aim = max(AIM_LEAST, self.aim * (1.0 - NARROW))
        elif tpot_s > PACED * self.aim * self.tpot_s:
            self.aim = min(AIM_MOST, self.aim * (1.0 + NARROW * MISSED / (1.0 - MISSED)))

    def _prefilled(self, flight: Flight, now: float) -> None:
        self.urgent.pop(flight.request.id, None)
        self.prefilling -= 1
        self.pending_tokens -= flight.uncached
        self.pending_s = self.pending_s - flight.own_s if self.prefilling else 0.0
        self.busy_until = now + self.pending_s
        # A paced node is free when the plan says so, or later when it is behind: steps without prefill, which the plan leaves
        # time for, may as well have come in between.
        if self.share >= 1.0 or self.free_at < self.busy_until:
            self.free_at = self.busy_until

    def take_back(self, flight: Flight, now: float) -> None:
        """The request ended, however it did."""
        self.running -= 1
        memory = self.memory
        memory.settle(flight.request.id)
        if self.bounded:
            memory.pool.drop(flight, self.clock(now))
            if flight.shares:
                memory.give_up(flight.request.blocks)
            elif self.shares_prefix and flight.request.blocks:
                memory.whole -= 1
        if flight.request.stream:
            if flight.first < 0:
                self.free_at -= flight.own_s
                self._prefilled(flight, now)
        elif flight.done_at > now:
            early = min(flight.own_s, self.busy_until - now)
            self.busy_until -= early
            self.free_at -= early

    def learn_end(self, flight: Flight, now: float) -> None:
        """An answer ended well. Of a node that does not say what it takes at once, that is all there is to learn from."""
        if not flight.request.stream:
            self.learn_whole(flight, now)
        learned = self.concurrency
        if learned is not None and learned.rules:
            took_s = now - flight.forwarded
            learned.ended(self.running, took_s if took_s > 1e-4 else 1e-4, now)
            self.limit = learned.limit
            self.answer_s = 0.5 * (learned.base_s or learned.recent_s)
            self.beside_s = 0.5 * learned.recent_s / max(1.0, min(learned.limit, learned.beside))
            return
        if self.limit < self.max_running:
            self.limit = min(self.limit + 1 / self.limit, self.max_running)

    def in_time(self, flight: Flight, now: float) -> bool:
        """Whether an answer begun now is likely to be whole in time; always, where nothing is known of whole answers.

        A node that has next to nothing to do is tried all the same: nobody would find out that it is better than it was.
        """
        learned = self.concurrency
        return (
            learned is None
            or self.running < IDLE_SHARE * self.limit
            or now + learned.time_s(self.running + 1) * flight.usual <= flight.ends
        )

    def said_busy(self, now: float) -> None:
        """It is full, and has already given the request back."""
        self.limit = max(1.0, float(self.running))
        if self.concurrency is not None and self.concurrency.rules:
            self.concurrency.busy(self.running, now)
            self.limit = self.concurrency.limit
        self.free_at = max(self.free_at, now + BUSY_PAUSE_S)

    def learn_whole(self, flight: Flight, now: float) -> None:
        """A JSON answer shows no first token. But its whole time bounds its prefill's where it was alone, and a node cannot
        end requests faster than it prefills them: `WHOLE` answers in less time than thought say it is faster.
        """
        if self.running == 1 and now - flight.forwarded < flight.own_s:
            self._learn(flight.uncached, now - flight.forwarded)
        self.whole_count += 1
        self.whole_tokens += flight.uncached
        if self.whole_count == WHOLE:
            tokens, seconds = self.whole_tokens // WHOLE, (now - self.whole_began) / WHOLE
            if seconds < self.base_s + tokens * self.token_s:
                self._learn(tokens, seconds)
            self._restart_whole(now)

    def _restart_whole(self, now: float) -> None:
        self.whole_count = self.whole_tokens = 0
        self.whole_began = now

    def _learn(self, tokens: int, seconds: float) -> None:
        self.prefill.learn(tokens, seconds)
        self.base_s, self.token_s = self.prefill.base_s, self.prefill.token_s

    def progress(self, tokens: int, stream_s: float, now: float) -> None:
        """Learn the engine's steps from the last interval."""
        done = float(self.prefilled_tokens)
        if self.prefilling:
            done += min(self.pending_tokens, (now - self.prefill.mark) / self.token_s)
        if now > self.progress_at > -inf:
            self.steps.learn(tokens, stream_s, max(0.0, done - self.progress_tokens), now - self.progress_at)
            self.learn_pace()
            if self.tpot_s < inf:
                self._pace()
        if tokens > 0 and stream_s > 0:
            rate = tokens / stream_s
            if now > self.progress_at > -inf:
                self.count += rate * (now - self.progress_at)
            self.count_per_s = rate
        self.progress_at, self.progress_tokens = now, done
        self.memory.pool.refresh(self.clock(now), self.memory.tight and self.count_per_s > 0)

    def snapshot(self, prefix_blocks: int, now: float) -> NodeSnapshot:
        return NodeSnapshot(
            name=self.name,
            state=self.state,
            breaker=str(self.breaker.state),
            running=self.running,
            prefilling=self.prefilling,
            backlog_s=max(0.0, self.free_at - now),
            kv_reserved_tokens=self.memory.promised(),
            kv_tokens=None if self.memory.capacity == inf else int(self.memory.capacity),
            kv_used_tokens=None if self.memory.capacity == inf else int(self.memory.used(self.clock(now))),
            kv_rounding_tokens=None if self.memory.capacity == inf else self.memory.reserved - self.memory.asked,
            prefill_tokens_per_s=1 / self.token_s,
            itl_s=self.steps.itl_s,
            prefix_blocks=prefix_blocks,
            reported=self.reported,
        )


def nodes_of(settings: config.Config, knobs: Knobs, profiles: Mapping[str, Profile], old: Mapping[str, Node], first: int) -> list[Node]:
    """The configured nodes; one that was there before under the same name and URL stays as it is. New ones are numbered from `first`."""
    nodes = []
    for node in settings.nodes:
        before = old.get(node.name)
        if before is not None and before.config == node:
            nodes.append(before)
        else:
            nodes.append(Node(first, node, knobs, profiles.get(node.profile or "")))
            first += 1
    return nodes
