"""A node of the simulated fleet: an engine with a clock of its own, so that it can be slowed, killed and restarted."""

from __future__ import annotations

from math import inf

from penstock.engine.histogram import Histogram
from penstock.engine.model import Engine
from penstock.engine.sequence import Outcome, Sequence
from penstock.facts import Form, Profile, Signals

CONTINUES = (Form.CHAT,)
"""What nobody reads any engine can go on with."""


class Machine:
    """Times given and returned are the world's; a slow machine's engine sees fewer seconds."""

    __slots__ = (
        "_banked_s", "_engine_at", "_gaps", "_marked_s", "_preempted", "_world_at", "alive", "decoded", "engine", "flying", "index", "lost",
        "mute", "name", "profile", "slow",
    )  # fmt: skip

    def __init__(self, index: int, name: str, profile: Profile) -> None:
        self.index, self.name, self.profile = index, name, profile
        self.engine = Engine(profile)
        self.alive, self.lost, self.mute = True, False, False
        self.slow = 1.0
        self._world_at = self._engine_at = 0.0
        self.flying: dict[int, None] = {}
        """Ids of the requests on it, in the order they came."""
        self.decoded = (0, 0.0)
        """Tokens and stream-seconds already told."""
        self._gaps: list[tuple[float, Histogram]] = []
        """Slowness and gaps between tokens on the engine's clock, of the times before the present pace."""
        self._preempted = 0
        self._banked_s = self._marked_s = 0.0

    def submit(self, sequence: Sequence, now: float) -> None:
        self.engine.submit(sequence, self._local(now))
        self.flying[sequence.id] = None

    def cancel(self, id: int, now: float) -> None:
        if self.flying.pop(id, 0) is None:
            self.engine.cancel(id, self._local(now))

    def deadline(self) -> float:
        """When its next outcome is due."""
        at = self.engine.deadline
        return at if self.slow == 1.0 and not self._world_at else self._world_at + (at - self._engine_at) * self.slow

    def advance(self, now: float) -> list[Outcome]:
        """Outcomes up to `now`, the deadline among them even where its conversion to the world's clock was rounded."""
        local = self._local(now)
        due = self.engine.deadline
        if due > local and self.deadline() <= now:
            local = due
        return self.engine.advance(local)

    def signals(self, now: float) -> Signals:
        """What its metrics endpoint says."""
        if self.mute:
            return Signals(continues=CONTINUES)
        engine, local = self.engine, self._local(now)
        if engine.deadline > local:
            engine.advance(local)
        return Signals(
            running=engine.running, waiting=engine.waiting, kv_usage=engine.kv_used_tokens / self.profile.kv_tokens, continues=CONTINUES
        )

    def decoding(self, now: float) -> tuple[int, float]:
        """Tokens and stream-seconds since it was last asked."""
        tokens, stream_s = self.engine.progress(self._local(now))
        before_tokens, before_s = self.decoded
        self.decoded = (tokens, stream_s)
        return tokens - before_tokens, (stream_s - before_s) * self.slow

    def pace(self, factor: float, now: float) -> None:
        """From now on every step takes `factor` times as long as its profile says."""
        self._bank(now)
        self.engine.itl = Histogram()
        self._world_at, self._engine_at, self.slow = now, self._local(now), factor

    def kill(self, now: float) -> dict[int, int]:
        """Its process dies; the requests that were on it, and the tokens that it wrote of each."""
        local = self._local(now)
        lost = {id: self.engine.emitted(id, local) for id in self.flying}
        self._bank(now)
        self._preempted += self.engine.preempted
        self.engine, self._marked_s = Engine(self.profile), 0.0
        self.alive, self.decoded = False, (0, 0.0)
        self.flying.clear()
        return lost

    def restart(self, now: float) -> None:
        self.alive, self.mute = True, False
        self._world_at, self._engine_at, self.slow = now, 0.0, 1.0

    def busy_s(self, now: float) -> float:
        """Seconds it computed, on the world's clock."""
        return self._banked_s + (self.engine.busy_s(self._local(now)) - self._marked_s) * self.slow

    def preempted(self) -> int:
        return self._preempted + self.engine.preempted

    def itl(self) -> Histogram:
        """Seconds between tokens, on the world's clock; steps under way at a change of pace count at the new one."""
        whole = Histogram()
        for slow, gaps in [*self._gaps, (self.slow, self.engine.itl)]:
            whole.merge(slowed(gaps, slow))
        return whole

    def _bank(self, now: float) -> None:
        self._banked_s, self._marked_s = self.busy_s(now), self.engine.busy_s(self._local(now))
        self._gaps.append((self.slow, self.engine.itl))

    def _local(self, now: float) -> float:
        if self.slow == 1.0 and not self._world_at:
            return now
        return self._engine_at + (now - self._world_at) / self.slow if now < inf else inf


def slowed(gaps: Histogram, factor: float) -> Histogram:
    """The same, every value `factor` times as large: buckets are logarithmic, so all move by as many."""
    if factor == 1.0:
        return gaps
    one, other, whole = Histogram(), Histogram(), Histogram()
    one.add(1.0)
    other.add(factor)
    shift = min(other.buckets) - min(one.buckets)
    whole.buckets = {bucket + shift: weight for bucket, weight in gaps.buckets.items()}
    whole.count, whole.total = gaps.count, gaps.total * factor
    return whole
