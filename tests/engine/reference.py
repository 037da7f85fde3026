"""The same engine written the slow way: one step at a time, every sequence looked at in every step."""

from __future__ import annotations

from penstock.engine.sequence import Ended, Outcome, Sequence, Started
from penstock.facts import Profile

BLOCK = 512


class Slow:
    """What the reference keeps of a sequence."""

    def __init__(self, sequence: Sequence, serial: int) -> None:
        self.sequence, self.id, self.serial = sequence, sequence.id, serial
        self.out = 0
        self.computed = 0
        self.goal = sequence.prompt_tokens
        self.cached = 0
        self.shared: list[int] = []
        self.decoding = False

    @property
    def slots(self) -> int:
        """KV slots held: the prompt's from admission on, then one more a step."""
        return self.sequence.prompt_tokens + self.out - 1 if self.decoding else self.goal


class Reference:
    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.pool = profile.kv_tokens // profile.page_tokens
        self.waiting: list[Slow] = []
        self.running: list[Slow] = []
        self.cache: list[int] = []
        """Cached blocks nobody holds (or, apart from the pool, all of them), least recently used first."""
        self.users: dict[int, int] = {}
        self.at = 0.0
        self.end: float | None = None
        self.chunks: list[tuple[Slow, int]] = []
        self.steps = self.serial = self.preempted = self.tokens = self.hits = 0
        self.shut = False

    # Memory, counted afresh whenever asked.

    def pages(self, slots: int) -> int:
        return -(-slots // self.profile.page_tokens)

    def available(self) -> int:
        block = BLOCK // self.profile.page_tokens
        own = sum(self.pages(one.slots) - len(one.shared) * block for one in self.running)
        return self.pool - own - block * sum(1 for users in self.users.values() if users)

    def shrink(self) -> None:
        """Evict what no longer fits."""
        block = BLOCK // self.profile.page_tokens
        if self.profile.cache_tokens:
            del self.cache[: max(0, len(self.cache) - self.profile.cache_tokens // BLOCK)]
            return
        while self.cache and self.available() < len(self.cache) * block:
            del self.users[self.cache.pop(0)]

    def usable(self, one: Slow) -> tuple[int, ...]:
        return one.sequence.blocks[: min(one.sequence.prompt_tokens // BLOCK, (one.goal - 1) // BLOCK)]

    def admit(self, one: Slow, reserve: int) -> bool:
        known = self.cache if self.profile.cache_tokens else self.users
        hits = []
        for block in self.usable(one):
            if block not in known:
                break
            hits.append(block)
        each = BLOCK // self.profile.page_tokens
        need = self.pages(one.goal)
        if not self.profile.cache_tokens:
            need += each * (sum(1 for block in hits if block in self.cache) - len(hits))
        if self.available() - need < reserve:
            return False
        if self.profile.cache_tokens:
            self.touch(hits)
        else:
            one.shared = list(hits)
            for block in hits:
                self.users[block] += 1
                if block in self.cache:
                    self.cache.remove(block)
        one.computed = one.cached = len(hits) * BLOCK
        self.waiting.remove(one)
        self.running.append(one)
        self.shrink()
        return True

    def touch(self, blocks: list[int]) -> None:
        for block in reversed(blocks):
            if block in self.cache:
                self.cache.remove(block)
                self.cache.append(block)

    def store(self, one: Slow, before: int) -> None:
        last = min(one.computed, one.sequence.prompt_tokens) // BLOCK
        for block in one.sequence.blocks[before // BLOCK : last]:
            if self.profile.cache_tokens:
                if block not in self.cache:
                    self.cache.append(block)
                    self.shrink()
            elif block not in self.users:
                self.users[block] = 1
                one.shared.append(block)
        if self.profile.cache_tokens and one.computed == one.goal:
            self.touch(list(one.sequence.blocks[:last]))
        self.shrink()

    def drop(self, one: Slow) -> None:
        self.running.remove(one)
        for block in reversed(one.shared):
            self.users[block] -= 1
            if not self.users[block]:
                self.cache.append(block)
        one.shared = []

    # Driving.

    def submit(self, sequence: Sequence, now: float) -> list[Outcome]:
        self.serial += 1
        if self.pages(sequence.prompt_tokens + sequence.output_tokens - 1) > self.pool:
            return [Ended(sequence.id, now, 0)]
        self.waiting.append(Slow(sequence, self.serial))
        return []

    def cancel(self, id: int) -> None:
        for one in list(self.waiting):
            if one.id == id:
                self.waiting.remove(one)
        for one in list(self.running):
            if one.id == id:
                self.chunks = [chunk for chunk in self.chunks if chunk[0] is not one]
                self.drop(one)

    def advance(self, until: float) -> list[Outcome]:
        """Steps that end up to `until`; those that begin at `until` are not begun, so that somebody may still come."""
        outcomes: list[Outcome] = []
        while True:
            if self.end is None:
                if not (self.running or self.waiting) or self.at >= until:
                    self.at = max(self.at, until)
                    return outcomes
                self.begin()
            assert self.end is not None
            if self.end > until:
                return outcomes
            outcomes += self.finish()

    def need(self) -> int:
        return sum(1 for one in self.running if one.decoding and self.pages(one.slots + 1) > self.pages(one.slots))

    def begin(self) -> None:
        shut = False
        while self.need() > self.available():
            one = self.running[-1]
            self.drop(one)
            again = Slow(one.sequence, one.serial)
            again.out, again.goal = one.out, one.sequence.prompt_tokens + one.out
            self.waiting.insert(0, again)
            self.preempted += 1
            shut = True
        budget, self.chunks = self.profile.chunk_tokens, []
        for one in self.running:
            if not one.decoding:
                budget -= self.give(one, budget)
        watermark = int(self.pool * 0.01)
        while self.waiting and budget and not shut and len(self.running) < self.profile.max_sequences:
            one = self.waiting[0]
            if not self.admit(one, max(self.need(), watermark) if self.running else 0):
                break
            budget -= self.give(one, budget)
        decoding = [one for one in self.running if one.decoding]
        context = sum(one.sequence.prompt_tokens + one.out for one in decoding)
        prefill = self.profile.chunk_tokens - budget
        p = self.profile
        self.end = self.at + p.c0_s + p.c1_s * len(decoding) + p.c2_s * context + p.c3_s * prefill

    def give(self, one: Slow, budget: int) -> int:
        take = min(one.goal - one.computed, budget)
        self.chunks.append((one, take))
        return take

    def finish(self) -> list[Outcome]:
        assert self.end is not None
        self.at, self.end = self.end, None
        self.steps += 1
        outcomes: list[Outcome] = []
        ended = []
        for one in sorted(self.running, key=lambda one: one.serial):
            if one.decoding:
                one.out += 1
                self.tokens += 1
                if one.out == one.sequence.output_tokens:
                    ended.append(one)
        self.shrink()
        for one, take in self.chunks:
            before = one.computed
            one.computed += take
            self.store(one, before)
        for one in ended:
            self.drop(one)
            outcomes.append(Ended(one.id, self.at, one.out))
        for one, _ in self.chunks:
            if one.computed == one.goal:
                one.decoding = True
                if one.out:
                    self.tokens += 1
                else:
                    self.hits += one.cached
                    outcomes.append(Started(one.id, self.at, one.cached))
                one.out += 1
                if one.out == one.sequence.output_tokens:
                    self.drop(one)
                    outcomes.append(Ended(one.id, self.at, one.out))
        return outcomes
