"""A continuous-batching engine, as vLLM and SGLang run it, in virtual time.

Law: no clock, no I/O. Each step gives every decoding sequence one token and spends up to `chunk_tokens` of prefill, first
come first served. While the batch stays the same the engine *leaps*: all steps up to the next change are one arithmetic
series, looked into only when somebody comes or goes in the middle. So the cost is per change, not per token.

Admission is lazy, as in vLLM: a waiting sequence is let in by the step that has prefill budget left for it, when its whole
prompt has room. When decoding runs out of KV the newest sequence gives its pages back and is computed again later.
"""

from __future__ import annotations

from collections import OrderedDict
from math import inf

from penstock.engine.decoding import Decoding
from penstock.engine.histogram import Histogram
from penstock.engine.leap import Leap
from penstock.engine.memory import memory
from penstock.engine.sequence import Ended, Outcome, Run, Sequence, Started
from penstock.facts import Profile

_WATERMARK = 0.01
"""Share of the pages that admission leaves free while others run, so that it does not cause preemption (vLLM's default)."""


class Engine:
    """One engine. Times are seconds of any origin and never go back; ids are the caller's and unique while they live.

    submit and cancel take effect at once for the queue and the memory; a step in progress keeps its duration.
    """

    def __init__(self, profile: Profile) -> None:
        """Raises ValueError for sizes that cannot work."""
        self.profile = profile
        self.memory = memory(profile)
        self._watermark = int(self.memory.pages * _WATERMARK)
        self._waiting: OrderedDict[int, Run] = OrderedDict()
        self._running: dict[int, Run] = {}
        """By admission, oldest first."""
        self._prefilling: list[Run] = []
        self._decoding = Decoding(profile.page_tokens)
        self._stalled = 0
        """Preempted runs whose first token is out: their callers see silence."""
        self._serial = 0
        self._outcomes: list[Outcome] = []

        self._now = -inf
        self._leap = Leap()
        self._steps = 0
        """Steps done when the leap begins."""
        self._chunks: list[tuple[Run, int]] = []
        """Who prefills how many tokens in each step of the leap."""
        self._budget = 0
        """Prefill tokens that each step of the leap has left."""
        self._shut = -1
        """Step count at which a preemption closed admission."""

        self.itl = Histogram()
        """Seconds between tokens, weighted by the number of sequences."""
        self.prompt_tokens = 0
        """Prompt tokens of started sequences."""
        self.hit_tokens = 0
        """Those of them that came from the cache."""
        self.preempted = 0
        self._busy_s = 0.0
        self._tokens = 0
        self._stream_s = 0.0

    # What drivers do.

    def submit(self, sequence: Sequence, now: float) -> None:
        """Queue a sequence. One that could never fit is Ended at once with 0 tokens."""
        self._run(now)
        self._serial += 1
        run = Run(sequence, self._serial)
        slots = sequence.prompt_tokens + sequence.output_tokens - 1
        if sequence.prompt_tokens < 1 or sequence.output_tokens < 1 or -(-slots // self.profile.page_tokens) > self.memory.pages:
            self._outcomes.append(Ended(sequence.id, self._now, 0))
            return
        blocked = self._waiting or not self._budget or len(self._running) >= self.profile.max_sequences
        self._waiting[run.id] = run
        leap = self._leap
        # A leap that it could not join before its end anyway, or that ends with the step in progress, need not be broken.
        if not leap.steps or not (blocked or (leap.steps == 1 and leap.at < self._now)):
            self._interrupt()

    def cancel(self, id: int, now: float) -> bool:
        """Forget a sequence and free what it holds. False when it had ended, or was never there."""
        self._run(now)
        run = self._waiting.get(id)
        if run is not None:
            was_head = next(iter(self._waiting)) == id
            del self._waiting[id]
            if run.done:
                self._stalled -= 1
                self._stream_s += self._leap.past_s(self._now)
            if was_head:
                self._interrupt()
            return True
        run = self._running.get(id)
        if run is None:
            return False
        self._break_leap()
        if run.emitted(self._steps):
            self._stream_s += self._leap.past_s(self._now)
        self._remove(run)
        self._interrupt()
        return True

    def advance(self, now: float) -> list[Outcome]:
        """What happened up to and at `now` and was not returned before, in order of time."""
        self._run(now)
        outcomes = self._outcomes
        if outcomes:
            self._outcomes = []
        return outcomes

    @property
    def deadline(self) -> float:
        """When to advance next if nothing else is submitted: an outcome or another change of the batch; inf when idle."""
        return self._outcomes[0].at if self._outcomes else self._leap.end

    # What drivers look at. `now` is not before the last call's.

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def kv_used_tokens(self) -> int:
        """KV memory held by running sequences, in whole pages; blocks that only the cache keeps do not count."""
        taken = self._decoding.pages(self._steps, self._leap.done(self._now))
        return (self.memory.pages - self.memory.available + taken) * self.profile.page_tokens

    def steps(self, now: float) -> int:
        """Steps done by `now`."""
        return self._steps + self._leap.done(now)

    def step_deadline(self, now: float) -> float:
        """When the step in progress at `now` ends, that is, when decoding sequences get their next token; inf when idle."""
        return self._leap.time(self._leap.done(now) + 1) if self._leap.steps else inf

    def emitted(self, id: int, now: float) -> int:
        """Tokens of a living sequence that are out by `now`; 0 for an unknown one."""
        run = self._running.get(id) or self._waiting.get(id)
        return run.emitted(self.steps(now)) if run is not None else 0

    def counts(self, now: float) -> list[tuple[int, int]]:
        """Id and tokens out by `now` of every sequence that is decoding."""
        steps = self.steps(now)
        return [(run.id, run.done + 1 + steps - run.began) for run in self._running.values() if run.began >= 0]

    def progress(self, now: float) -> tuple[int, float]:
        """Since the beginning: tokens out after first ones, and the seconds that sequences spent after their first token."""
        decoding, leap = self._decoding.count, self._leap
        return self._tokens + leap.done(now) * decoding, self._stream_s + leap.past_s(now) * (decoding + self._stalled)

    def busy_s(self, now: float) -> float:
        """Seconds spent computing."""
        return self._busy_s + self._leap.past_s(now)

    # Through time.

    def _run(self, now: float) -> None:
        if now > self._now:
            self._now = now
        leap = self._leap
        while leap.end <= now:
            self._pass(leap.steps)
            self._settle()
            self._plan()

    def _pass(self, steps: int) -> None:
        """Do the first `steps` steps of the leap; what its last step completes is for `_settle`."""
        leap, decoding = self._leap, self._decoding
        count, began = decoding.count, leap.at
        if count:
            self.memory.grow(decoding.pages(self._steps, steps))
            decoding.context += count * steps
            self._tokens += count * steps
            self.itl.add_series(leap.first_s, leap.slope_s, steps, count)
        for run, take in self._chunks:
            before = run.total - run.left
            run.left -= take * steps
            self.memory.computed(run, before)
        leap.drop(steps)
        self._steps += steps
        self._stream_s += (count + self._stalled) * (leap.at - began)
        self._busy_s += leap.at - began

    def _break_leap(self) -> None:
        """Leave of the leap only the step in progress, which keeps its end; at a boundary the step to come."""
        done = self._leap.done(self._now)
        if done:
            self._pass(done)
        self._leap.stop()

    def _interrupt(self) -> None:
        """The batch may change at the next boundary: plan anew if that is now, else let the step in progress be the leap's last."""
        self._break_leap()
        leap = self._leap
        if not leap.steps:
            leap.at = max(leap.at, self._now)
            self._plan()
        elif self._now <= leap.at:
            self._plan()

    # What a boundary between steps brings.

    def _settle(self) -> None:
        """Runs whose last token came out end; runs whose prefill is complete show a token."""
        for run in self._decoding.ended(self._steps):
            self._end(run)
        if self._chunks:
            self._prefilling = [run for run in self._prefilling if run.left]
            for run, _ in self._chunks:
                if run.left == 0:
                    self._show(run)

    def _show(self, run: Run) -> None:
        """A prefill is complete, and with it a token: the sequence's first, unless the run was preempted."""
        run.began = self._steps
        at = self._leap.at
        if run.done:
            self._stalled -= 1
            self._tokens += 1
            self.itl.add(at - run.last_at)
        else:
            self.hit_tokens += run.cached
            self.prompt_tokens += run.sequence.prompt_tokens
            self._outcomes.append(Started(run.id, at, run.cached))
        end = self._steps + run.sequence.output_tokens - run.done - 1
        self._decoding.add(run, end)
        if end == self._steps:
            self._end(run)

    def _end(self, run: Run) -> None:
        self._remove(run)
        self._outcomes.append(Ended(run.id, self._leap.at, run.sequence.output_tokens))

    def _remove(self, run: Run) -> None:
        """Take a run out of the batch, with all it holds."""
        run.gone = True
        del self._running[run.id]
        self.memory.release(run, run.slots(self._steps))
        if run.began >= 0:
            self._decoding.remove(run, self._steps)
            return
        self._prefilling.remove(run)
        self._chunks = [chunk for chunk in self._chunks if chunk[0] is not run]
        self._stalled -= run.done > 0

    # Planning.

    def _plan(self) -> None:
        """Choose the next step's batch, and for how many steps it stays the same."""
        self._preempt_for_room()
        self._fill()
        steps = self._steps_alike()
        if not steps:
            self._leap.clear()
            return
        profile, decoding = self.profile, self._decoding
        prefill = profile.chunk_tokens - self._budget
        first_s = profile.c0_s + profile.c1_s * decoding.count + profile.c2_s * decoding.context + profile.c3_s * prefill
        self._leap.plan(steps, first_s, profile.c2_s * decoding.count)

    def _preempt_for_room(self) -> None:
        """The newest runs give way until every decoding run can take its next token's page."""
        while self._decoding.next_pages(self._steps) > self.memory.available:
            run = next(reversed(self._running.values()))
            emitted = run.emitted(self._steps)
            last_at = run.last_at if run.began < 0 else self._leap.at
            self._remove(run)
            self._stalled += emitted > 0
            self._waiting[run.id] = Run(run.sequence, run.serial, emitted, last_at)
            self._waiting.move_to_end(run.id, last=False)
            self.preempted += 1
            self._shut = self._steps

    def _fill(self) -> None:
        """Share the step's prefill budget, first among those that prefill already, then among waiting ones that fit."""
        budget, chunks = self.profile.chunk_tokens, []
        for run in self._prefilling:
            take = run.left if run.left < budget else budget
            chunks.append((run, take))
            budget -= take
        if self._waiting and budget and self._shut != self._steps:
            reserve = max(self._decoding.next_pages(self._steps), self._watermark)
            while budget and (admitted := self._admit(reserve)):
                take = admitted.left if admitted.left < budget else budget
                chunks.append((admitted, take))
                budget -= take
        self._chunks, self._budget = chunks, budget

    def _admit(self, reserve: int) -> Run | None:
        """Let the first waiting run in if it fits, `reserve` pages kept while others run."""
        if not self._waiting or len(self._running) >= self.profile.max_sequences:
            return None
        run = next(iter(self._waiting.values()))
        if not self.memory.admit(run, reserve if self._running else 0):
            return None
        del self._waiting[run.id]
        self._running[run.id] = run
        self._prefilling.append(run)
        return run

    def _steps_alike(self) -> int:
        """Steps until a run ends, a prefill completes or starts, or pages run out; 0 when there is nothing to do."""
        steps = self._decoding.steps_to_end(self._steps)
        if self._chunks:
            run, take = self._chunks[0]
            whole = -(-run.left // take) - 1  # steps that one long prefill fills alone, without its last
            steps = 1 if self._budget or len(self._chunks) > 1 or whole < 1 else min(steps or whole, whole)
        if self._waiting and self._shut == self._steps:
            return min(steps, 1)
        return self._decoding.steps_with_room(self._steps, steps, self.memory.available)
