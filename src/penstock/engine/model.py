"""A continuous-batching engine, as vLLM and SGLang run it, in virtual time.

Law: no clock, no I/O. Each step gives every decoding sequence one token and spends up to `chunk_tokens` of prefill, first
come first served. While the batch stays the same the engine *leaps*: all steps up to the next change are one arithmetic
series, looked into only when somebody comes or goes in the middle. So the cost is per change, not per token.

Admission is lazy, as in vLLM: a waiting sequence is let in by the step that has prefill budget left for it, when its whole
prompt has room. When decoding runs out of KV the newest sequence gives its pages back and is computed again later.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush
from math import inf, sqrt

from penstock.engine.histogram import Histogram
from penstock.engine.memory import memory
from penstock.engine.sequence import Ended, Outcome, Run, Sequence, Started
from penstock.facts import Profile

_WATERMARK = 0.01
"""Share of the pages that admission leaves free while others run, so that it does not cause preemption (vLLM's default)."""
_FAR = 1 << 60


class Engine:
    """One engine. Times are seconds of any origin and never go back; ids are the caller's and unique while they live.

    submit and cancel take effect at once for the queue and the memory; a step in progress keeps its duration.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.memory = memory(profile)
        self._watermark = int(self.memory.pages * _WATERMARK)
        self._running: dict[int, Run] = {}
        """By admission, oldest first."""
        self._waiting: OrderedDict[int, Run] = OrderedDict()
        self._prefilling: list[Run] = []
        self._finishes: list[tuple[int, int, Run]] = []
        """Heap of (step count at which a decoding run's last token is out, serial, run)."""
        self._decoding = 0
        self._context = 0
        """Summed context of the decoding runs in the next step."""
        self._phase = [0] * profile.page_tokens
        """Decoding runs that take a new page in the steps whose number modulo the page size is the index."""
        self._stalled = 0
        """Preempted runs whose first token is out: their callers see silence."""
        self._serial = 0
        self._outcomes: list[Outcome] = []

        # The leap in progress: `_leap` steps from time `_at` on, the first of `_first_s`, each `_slope_s` longer than the one before.
        self._now = -inf
        self._at = -inf
        self._steps = 0
        """Steps done at `_at`."""
        self._leap = 0
        self._first_s = 0.0
        self._slope_s = 0.0
        self._end = inf
        self._chunks: list[tuple[Run, int]] = []
        """Who prefills how many tokens in each step of the leap."""
        self._budget = 0
        """Prefill tokens that each step of the leap has left."""
        self._shut = -1
        """Step count at which a preemption closed admission."""

        self.itl = Histogram()
        """Seconds between tokens, weighted by the number of sequences."""
        self.hit_tokens = 0
        self.prompt_tokens = 0
        """Prompt tokens of started sequences; `hit_tokens` of them came from the cache."""
        self.preempted = 0
        self._busy_s = 0.0
        self._tokens = 0
        self._stream_s = 0.0

    # What drivers do.

    def submit(self, sequence: Sequence, now: float) -> None:
        """Queue a sequence. One that could never fit is Ended at once with 0 tokens."""
        self._run(now)
        run = Run(sequence, self._next_serial())
        slots = sequence.prompt_tokens + sequence.output_tokens - 1
        if sequence.prompt_tokens < 1 or sequence.output_tokens < 1 or -(-slots // self.profile.page_tokens) > self.memory.pages:
            self._outcomes.append(Ended(sequence.id, self._now, 0))
            return
        blocked = self._waiting or not self._budget or len(self._running) >= self.profile.max_sequences
        self._waiting[run.id] = run
        if self._leap and blocked:
            return  # it could not join before the leap's end anyway
        if self._leap == 1 and self._at < self._now:
            return
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
                self._stream_s += self._past_s()
            if was_head:
                self._interrupt()
            return True
        run = self._running.get(id)
        if run is None:
            return False
        self._break_leap()
        if run.emitted(self._steps):
            self._stream_s += self._past_s()
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
        return self._outcomes[0].at if self._outcomes else self._end

    # What drivers look at.

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def kv_used_tokens(self) -> int:
        """KV memory held by running sequences, in whole pages; blocks that only the cache keeps do not count."""
        used = self.memory.pages - self.memory.available + self._growth(self._done(self._now))
        return used * self.profile.page_tokens

    def steps(self, now: float) -> int:
        """Steps done by `now`, which is not before the last call's."""
        return self._steps + self._done(now)

    def step_deadline(self, now: float) -> float:
        """When the step in progress at `now` ends, that is, when decoding sequences get their next token; inf when idle."""
        return self._time(self._done(now) + 1) if self._leap else inf

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
        done = self._done(now)
        streaming = self._decoding + self._stalled
        past_s = max(0.0, now - self._at) if self._leap else 0.0
        return self._tokens + done * self._decoding, self._stream_s + past_s * streaming

    def busy_s(self, now: float) -> float:
        """Seconds spent computing."""
        return self._busy_s + (max(0.0, now - self._at) if self._leap else 0.0)

    # Time.

    def _past_s(self) -> float:
        """Seconds since the leap's beginning."""
        return self._now - self._at if self._leap else 0.0

    def _time(self, steps: int) -> float:
        """When the leap's first `steps` steps are done."""
        if steps == self._leap:
            return self._end
        return self._at + steps * self._first_s + self._slope_s * (steps * (steps - 1) // 2)

    def _done(self, now: float) -> int:
        """Steps of the leap that are done by `now`; the last one is done only once `_run` says so."""
        last = self._leap - 1
        if last <= 0 or now < self._at + self._first_s:
            return 0
        past, first, slope = now - self._at, self._first_s, self._slope_s
        if slope > 0.0:  # solve slope/2 * k^2 + (first - slope/2) * k = past
            half = first - slope / 2
            steps = int(2 * past / (half + sqrt(half * half + 2 * slope * past)))
        else:
            steps = int(past / first)
        steps = min(max(steps, 0), last)
        while steps < last and self._time(steps + 1) <= now:
            steps += 1
        while steps and self._time(steps) > now:
            steps -= 1
        return steps

    def _run(self, now: float) -> None:
        if now > self._now:
            self._now = now
        while self._end <= now:
            self._pass(self._leap)
            self._settle()
            self._plan()

    def _pass(self, steps: int) -> None:
        """Do the first `steps` steps of the leap; what its last step completes is for `_settle`."""
        after = self._time(steps)
        lasted = after - self._at
        decoding = self._decoding
        if decoding:
            self.memory.grow(self._growth(steps))
            self._context += decoding * steps
            self._tokens += decoding * steps
            self.itl.add_series(self._first_s, self._slope_s, steps, decoding)
        self._stream_s += (decoding + self._stalled) * lasted
        self._busy_s += lasted
        for run, take in self._chunks:
            before = run.total - run.left
            run.left -= take * steps
            self.memory.computed(run, before)
        self._at = after
        self._steps += steps
        self._leap -= steps
        self._first_s += self._slope_s * steps

    def _break_leap(self) -> None:
        """Leave of the leap only the step in progress, which keeps its end; at a boundary leave nothing."""
        done = self._done(self._now)
        if done:
            self._pass(done)
        if self._leap > 1:
            self._leap = 1
            self._end = self._at + self._first_s

    def _interrupt(self) -> None:
        """The batch may change at the next boundary: plan anew if that is now, else end the leap with the step in progress."""
        self._break_leap()
        if not self._leap:
            self._at = max(self._at, self._now)
            self._plan()
        elif self._now <= self._at:
            self._plan()

    # What a boundary between steps brings.

    def _settle(self) -> None:
        """Runs whose last token came out end; runs whose prefill is complete show a token."""
        steps, finishes = self._steps, self._finishes
        while finishes and finishes[0][0] <= steps:
            run = heappop(finishes)[2]
            if not run.gone:
                self._end_run(run)
        if self._chunks:
            complete = [run for run, _ in self._chunks if run.left == 0]
            self._prefilling = [run for run in self._prefilling if run.left]
            for run in complete:
                self._show(run)

    def _show(self, run: Run) -> None:
        """A prefill is complete, and with it a token: the sequence's first, unless the run was preempted."""
        run.began = self._steps
        if run.done:
            self._stalled -= 1
            self._tokens += 1
            self.itl.add(self._at - run.last_at)
        else:
            self.hit_tokens += run.cached
            self.prompt_tokens += run.sequence.prompt_tokens
            self._outcomes.append(Started(run.id, self._at, run.cached))
        self._decoding += 1
        self._context += run.total + 1
        self._phase[(run.began + 1 - run.total) % self.profile.page_tokens] += 1
        finish = self._steps + run.sequence.output_tokens - run.done - 1
        if finish == self._steps:
            self._end_run(run)
        else:
            heappush(self._finishes, (finish, run.serial, run))

    def _end_run(self, run: Run) -> None:
        self._remove(run)
        self._outcomes.append(Ended(run.id, self._at, run.sequence.output_tokens))

    def _remove(self, run: Run) -> None:
        """Take a run out of the batch, with all it holds."""
        run.gone = True
        del self._running[run.id]
        self.memory.release(run, run.slots(self._steps))
        if run.began < 0:
            self._prefilling.remove(run)
            self._chunks = [chunk for chunk in self._chunks if chunk[0] is not run]
            self._stalled -= run.done > 0
            return
        self._decoding -= 1
        self._context -= run.total + 1 + self._steps - run.began
        self._phase[(run.began + 1 - run.total) % self.profile.page_tokens] -= 1

    # Planning.

    def _plan(self) -> None:
        """Choose the next step's batch, and for how many steps it stays the same."""
        self._preempt_for_room()
        profile = self.profile
        self._fill()
        steps = self._steps_alike()
        if not steps:
            self._leap, self._end = 0, inf
            return
        prefill = profile.chunk_tokens - self._budget
        self._first_s = profile.c0_s + profile.c1_s * self._decoding + profile.c2_s * self._context + profile.c3_s * prefill
        self._slope_s = profile.c2_s * self._decoding
        self._leap = steps
        self._end = self._at + steps * self._first_s + self._slope_s * (steps * (steps - 1) // 2)

    def _preempt_for_room(self) -> None:
        """The newest runs give way until every decoding run can take its next token's page."""
        index = (self._steps + 1) % self.profile.page_tokens
        while self._phase[index] > self.memory.available:
            run = next(reversed(self._running.values()))
            emitted = run.emitted(self._steps)
            last_at = run.last_at if run.began < 0 else self._at
            self._remove(run)
            self._stalled += emitted > 0
            self._waiting[run.id] = Run(run.sequence, run.serial, emitted, last_at)
            self._waiting.move_to_end(run.id, last=False)
            self.preempted += 1
            self._shut = self._steps

    def _fill(self) -> None:
        """Share the step's prefill budget, first among those that prefill already, then among waiting ones that fit."""
        budget = self.profile.chunk_tokens
        chunks = []
        for run in self._prefilling:
            take = run.left if run.left < budget else budget
            chunks.append((run, take))
            budget -= take
        waiting = self._waiting
        if waiting and budget and self._shut != self._steps:
            reserve = self._phase[(self._steps + 1) % self.profile.page_tokens]
            while waiting and budget and len(self._running) < self.profile.max_sequences:
                run = next(iter(waiting.values()))
                if not self.memory.admit(run, max(reserve, self._watermark) if self._running else 0):
                    break
                del waiting[run.id]
                self._running[run.id] = run
                self._prefilling.append(run)
                take = run.left if run.left < budget else budget
                chunks.append((run, take))
                budget -= take
        self._chunks, self._budget = chunks, budget

    def _steps_alike(self) -> int:
        """Steps until a run ends, a prefill completes or starts, or pages run out; 0 when there is nothing to do."""
        steps, finishes = 0, self._finishes
        while finishes and finishes[0][2].gone:
            heappop(finishes)
        if finishes:
            steps = finishes[0][0] - self._steps
        if self._chunks:
            run, take = self._chunks[0]
            whole = -(-run.left // take) - 1 if len(self._chunks) == 1 and not self._budget else 1
            steps = min(steps or _FAR, max(1, whole))
        if self._waiting and self._shut == self._steps:
            return min(steps, 1)
        if self._decoding and self._decoding * (steps // self.profile.page_tokens + 1) > self.memory.available:
            steps = self._steps_with_room(steps)
        return steps

    def _growth(self, steps: int) -> int:
        """Pages that the decoding runs take in the next `steps` steps."""
        if not steps or not self._decoding:
            return 0
        phase, size = self._phase, self.profile.page_tokens
        if steps == 1:
            return phase[(self._steps + 1) % size]
        cycles, rest = divmod(steps, size)
        start = self._steps + 1
        return cycles * self._decoding + sum(phase[step % size] for step in range(start, start + rest))

    def _steps_with_room(self, steps: int) -> int:
        """At most `steps`, and as many as the available pages allow; at least one, see `_preempt_for_room`."""
        size, available = self.profile.page_tokens, self.memory.available
        cycles = available // self._decoding
        fit, left = cycles * size, available - cycles * self._decoding
        while fit < steps and self._phase[(self._steps + fit + 1) % size] <= left:
            left -= self._phase[(self._steps + fit + 1) % size]
            fit += 1
        return min(steps, fit)

    def _next_serial(self) -> int:
        self._serial += 1
        return self._serial
