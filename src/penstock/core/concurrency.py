"""How many requests at once a node does well with that does not say so, learned from when its answers end.

In rounds: the node is kept at so many requests, and when what was there before has gone, its ends are counted. By Little's law `n` at
once and `x` ends a second are answers of `n / x` seconds. A round is at the centre, or a step above or below it, so that the last few
rounds say what more at once brings: the slope of ends over requests at once, both as logarithms. Below a server's slots it is 1,
beyond them 0, in a batch it falls from one to the other; where it is `WORTH` the node does well, and the line inside it is short.

Where first tokens are seen and nothing else is promised, prefill says enough, and a node is not limited like this: `rules` says whether
it is.

A node that is new is given one more with each sign of life, as TCP's slow start does, until its answers take longer.
"""

from __future__ import annotations

from collections import deque
from math import exp, inf, log

START = 8.0
"""Requests at once on a node of which nothing is known."""
UNSEEN_MOST = 64.0
"""As many it may be given on first tokens alone, before an answer has ended."""
SLOWER = 2.5
"""A new node's answers that take so many times as long as its first ones say that it is full."""
WORTH = 0.25
"""Twice as much at once must bring this share of an octave more ends."""
STEP = 1.4
"""Between the centre and the rounds above and below it: enough to tell, little enough to lose little."""
CYCLE = (1.0, STEP, 1.0, 1.0, 1 / STEP)
GAIN = 0.5
"""How far the centre goes for a slope that is off by 1, as a logarithm."""
ROUNDS, KEEP = 10, 0.8
"""Rounds remembered, and how much less each counts than the one after it."""
DOUBT = 0.04
"""Keeps the slope of rounds that hardly differ from being taken for one; in squares of the logarithm of their sizes."""
ROUND_S, ROUND_ENDS = 1.0, 12
"""Least time and ends of a round."""
ROUND_MOST_S = 10.0
FULL = 0.8
"""A round counts when so many of its ends came while the node had all that it may have."""
PATIENCE = 0.6
"""Share of the time for a whole answer that the node itself may take on average."""
ALONE, ALONE_NEW, LONGEST = 1.25, 1.5, 0.85
"""But where its quickest answers take that long, it may take so many times as long as they; a new node, whose first answers were its
quickest, some more; and such a share of that time at most."""
TRIED = 0.75
"""Share of it that answers may take while more at once is tried."""
BUFFER_S = 0.1
"""A line inside the node that is this short is not worth avoiding: fast nodes are not held back."""
LATE_S, LATE_HELD_S = 0.5, 60.0
"""A first token that is later than predicted by more than this is not explained by prefill; such a node is limited for so long."""
IDLE = 0.8
"""Share of the centre that is counted on where less ran, for want of requests."""
BUSY_S = 5.0
"""How long a node that said that it is full is believed."""
BLIND, BLIND_STEP, BLIND_LEAST = 0.2, 0.05, 0.01
"""Share of requests, of late, from which it is limited by what is learned here; what one of them weighs in it; and what is none."""
RECENT, FADE = 1 / 16, 0.01
"""Weights of an answer in the recent mean, and of a slower batch in the base."""
BATCH = 8
"""Answers in a row whose mean time may be the base."""


class Concurrency:
    """`limit` is how many requests may run now; `most` bounds it. `recent_s` is the recent mean time of an answer, 0 while unknown."""

    __slots__ = (
        "_batch",
        "_batch_s",
        "_count",
        "_ends",
        "_first_token_s",
        "_full",
        "_known",
        "_ran",
        "_rounds",
        "_settled",
        "_took_s",
        "_turn",
        "base_s",
        "beside",
        "blind",
        "ceiling",
        "ceiling_until",
        "centre",
        "late_until",
        "lateness",
        "limit",
        "most",
        "patience_s",
        "recent_s",
        "rules",
        "starting",
    )  # fmt: skip

    def __init__(self, most: float) -> None:
        self.most = float(most)
        self.limit = self.centre = min(START, self.most)
        self.recent_s = self.base_s = 0.0
        """Means of the last answers' times, and of the quickest few in a row."""
        self.beside = 0.0
        """Recent mean of how many ran when one ended."""
        self.blind = -1.0
        """Running share of requests whose end is all that is seen, or that have a time for their whole answer; below 0 at first."""
        self.lateness, self.late_until = 0.0, -inf
        self.rules = False
        """Whether the node is limited by what is learned here."""
        self.patience_s = inf
        """The shortest time for a whole answer that its recent requests have."""
        self.starting = True
        self.ceiling, self.ceiling_until = inf, -inf
        self._batch, self._batch_s = 0, 0.0
        self._first_token_s = inf
        self._known = 0
        """Answers that have ended, until there are enough for a running mean."""
        self._ends: deque[float] = deque(maxlen=2 * BATCH)
        self._rounds: deque[tuple[float, float]] = deque(maxlen=ROUNDS)
        """Logarithms of requests at once and of ends a second, the latest last."""
        self._turn, self._count, self._full = 0, 0, 0
        self._ran, self._took_s = 0, 0.0
        """Of the round's answers, the sums of how many ran when they ended, and of their times."""
        self._settled = -inf

    # -- what happens

    def gave(self, stream: bool, total_s: float, running: int, now: float = 0.0) -> None:
        """A request was given that has `total_s` for its whole answer; `running` counts it."""
        blind = not stream or total_s < inf
        if not blind and not self.blind and not self.rules:
            return
        self.blind = float(blind) if self.blind < 0 else self.blind + BLIND_STEP * (blind - self.blind)
        if self.blind < BLIND_LEAST:
            self.blind = 0.0
        rules = self.blind > BLIND or now < self.late_until
        if rules is not self.rules:
            self._rule(rules, running)
        if total_s < self.patience_s:
            self.patience_s = total_s
        elif self.patience_s < inf:
            self.patience_s += 0.01 * (min(total_s, 4 * self.patience_s) - self.patience_s)

    def late(self, late: bool, running: int, now: float) -> None:
        """A first token came, `late` by far more than its prefill explains: there is a line inside the node."""
        self.lateness += BLIND_STEP * (late - self.lateness)
        if self.lateness > BLIND:
            self.late_until = now + LATE_HELD_S
            self._rule(True, running)

    def _rule(self, rules: bool, running: int) -> None:
        if rules and not self.rules and self.starting:
            # What it was trusted with on first tokens, it is trusted with still.
            self.limit = self.centre = min(self.most, max(self.limit, float(running)))
        self.rules = rules

    def first_token(self, took_s: float, running: int) -> None:
        self._first_token_s = min(self._first_token_s, took_s)
        if self.starting and self.limit < UNSEEN_MOST and took_s < SLOWER * self._first_token_s + 0.05:
            self._alive(running)

    def ended(self, running: int, took_s: float, now: float) -> None:
        """A request ended well; `running` counts it still."""
        self._known = min(self._known + 1, int(1 / RECENT))
        self.recent_s += (took_s - self.recent_s) / self._known
        self.beside += (running - self.beside) / self._known
        self._ends.append(now)
        self._batch += 1
        self._batch_s += took_s
        if self._batch == BATCH:
            self._batched(self._batch_s / BATCH, now)
            self._batch, self._batch_s = 0, 0.0
        if self.starting:
            self._alive(running)
        elif now >= self._settled:
            self._count += 1
            self._took_s += took_s
            self._ran += running
            self._full += running >= int(self.limit)
            if (self._count >= ROUND_ENDS and now - self._settled >= max(ROUND_S, self.recent_s)) or now - self._settled > ROUND_MOST_S:
                self._round(now)

    def busy(self, running: int, now: float) -> None:
        """It said that it is full, with `running` others on it."""
        self.starting = False
        self.ceiling, self.ceiling_until = max(1.0, float(running)), now + BUSY_S
        self.centre = min(self.centre, self.ceiling)
        self._begin(now)

    # -- what follows from it

    def per_s(self) -> float:
        """Ends a second while there is enough to do, by Little's law; 0 while unknown."""
        return max(self.beside, IDLE * self.centre) / self.recent_s if self.recent_s else 0.0

    def time_s(self, running: int) -> float:
        """An answer's mean time with so many on it: with less than of late it is shorter, which is how a slow node is tried again."""
        if running >= self.beside:
            return self.recent_s
        return max(min(self.base_s, self.recent_s), self.recent_s * running / self.beside)

    def _alive(self, running: int) -> None:
        if running + 1 >= self.limit:
            self.limit = self.centre = min(self.limit + 1.0, self.most, self.ceiling)

    def _batched(self, mean_s: float, now: float) -> None:
        if not self.base_s or mean_s < self.base_s:
            self.base_s = mean_s
        else:
            self.base_s += FADE * (mean_s - self.base_s)
        if self.starting and mean_s > max(BUFFER_S, full_s := min(SLOWER * self.base_s, self._patience_s())):
            self.starting = False
            per_s = (len(self._ends) - 1) / max(1e-3, now - self._ends[0])
            self.centre = min(self.limit, max(1.0, full_s * per_s))
            self._begin(now)

    def _begin(self, now: float) -> None:
        """Begin a round, once the requests of the one before have gone."""
        if self.ceiling_until < now:
            self.ceiling = inf
        size = self.centre * CYCLE[self._turn]
        if CYCLE[self._turn] > 1.0:
            # A step up is not to make answers late that are in time.
            size = max(min(size, TRIED * self.patience_s * self.per_s() or size), self.centre + 1.0)
        self.limit = min(max(1.0, float(round(size))), self.most, self.ceiling)
        self._settled = now + self.recent_s
        self._count = self._full = self._ran = 0
        self._took_s = 0.0

    def _round(self, now: float) -> None:
        if self._full >= FULL * self._count and self._count:
            per_s = self._count / (now - self._settled)
            self._rounds.append((log(self.limit), log(per_s)))
            if len(self._rounds) >= 2:
                self._move(self.limit / per_s)
            self.centre = min(max(self.centre, 1.0, BUFFER_S * per_s), self.most)
        elif self._count and self._took_s > self._count * (patience_s := self._patience_s()):
            # Answers are late, and what waits is kept off it for that.
            self.centre = max(1.0, min(self.centre, self._ran * patience_s / self._took_s))
        self._turn = (self._turn + 1) % len(CYCLE)
        self._begin(now)

    def _move(self, time_s: float) -> None:
        # Where answers are far from late, a longer line inside the node harms less than an idle slot.
        late = time_s / self._patience_s()
        change = self._slope() - WORTH * min(1.0, 1.5 * late if self.patience_s < inf else 1.0)
        if late > 1.0:
            change = min(0.0, change) - log(late)
        self.centre *= exp(max(-1.0, min(1.0, GAIN * change)))

    def _patience_s(self) -> float:
        """How long answers may take on average. Fewer at once do not make them shorter than they are alone."""
        patience_s = self.patience_s
        alone = ALONE_NEW if self.starting else ALONE
        return max(PATIENCE * patience_s, min(alone * self.base_s, LONGEST * patience_s)) if patience_s < inf else inf

    def _slope(self) -> float:
        """What more at once brings, as the last rounds say; `WORTH` as far as they say nothing."""
        total = x_sum = y_sum = 0.0
        weight = 1.0
        weighted = []
        for x, y in reversed(self._rounds):
            weighted.append((weight, x, y))
            total += weight
            x_sum += weight * x
            y_sum += weight * y
            weight *= KEEP
        x_mean, y_mean = x_sum / total, y_sum / total
        xx = sum(weight * (x - x_mean) ** 2 for weight, x, _ in weighted) / total
        xy = sum(weight * (x - x_mean) * (y - y_mean) for weight, x, y in weighted) / total
        return (xy + DOUBT * WORTH) / (xx + DOUBT)
