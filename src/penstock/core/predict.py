"""What the core expects: a node's prefill time from its uncached tokens, its token rate beside prefill, answers' lengths.

Everything is learned from what the wire shows (when requests were sent, first tokens seen, tokens counted), starts from
a profile or a plain guess, and forgets, so that a node that changes is followed.
"""

from __future__ import annotations

from penstock.facts import Profile


class Line:
    """y = a + b*x by least squares with exponential forgetting, held near a prior while it has seen little."""

    __slots__ = ("a", "b", "forget", "n", "prior", "sums")

    def __init__(self, a: float, b: float, span: float, forget: float = 0.98, weight: float = 0.05) -> None:
        """A prior line, believed as much as `weight` observations at x = 0 and at x = `span`."""
        self.a, self.b = a, b
        self.forget = forget
        end = a + b * span
        self.prior = (2 * weight, weight * span, weight * span * span, weight * (a + end), weight * span * end)
        self.sums = [0.0, 0.0, 0.0, 0.0, 0.0]
        self.n = 0

    def learn(self, x: float, y: float) -> None:
        sums, keep = self.sums, self.forget
        for i, term in enumerate((1.0, x, x * x, y, x * y)):
            sums[i] = sums[i] * keep + term
        self.n += 1
        n, sx, sxx, sy, sxy = self.totals()
        b = (n * sxy - sx * sy) / (n * sxx - sx * sx)
        self.a, self.b = (sy - b * sx) / n, b

    def totals(self) -> tuple[float, float, float, float, float]:
        """Sums of 1, x, x*x, y, x*y over what was seen and, until it has been outgrown, the prior."""
        n, sx, sxx, sy, sxy = self.sums
        known = self.prior
        trust = 1.0 if self.n < OUTGROWN else 0.02
        return n + trust * known[0], sx + trust * known[1], sxx + trust * known[2], sy + trust * known[3], sxy + trust * known[4]

    def at(self, x: float) -> float:
        return self.a + self.b * x


OUTGROWN = 20
"""Observations after which a prior only keeps a line from being undetermined."""
GUESS_BASE_S = 0.02
GUESS_TOKEN_S = 1 / 8_000
GUESS_CHUNK = 2_048
"""vLLM's and SGLang's smaller default."""
SAME_STEP_S = 0.002
"""First tokens closer than this came out of one engine step: their prompts were computed together."""
OUTLIER = 4.0


class Prefill:
    """Seconds of prefill as base + rate * uncached tokens, from the gaps between a busy node's first tokens."""

    __slots__ = ("base_s", "full", "line", "mark", "pending_s", "pending_tokens", "token_s")

    def __init__(self, profile: Profile | None) -> None:
        self.full = GUESS_CHUNK if profile is None else profile.chunk_tokens
        """Prompt tokens of a step that is full."""
        self.base_s = GUESS_BASE_S if profile is None else profile.c0_s
        self.token_s = GUESS_TOKEN_S if profile is None else profile.c3_s + profile.c0_s / profile.chunk_tokens
        self.line = Line(self.base_s, self.token_s, 4_000)
        self.mark = 0.0
        self.pending_tokens = 0
        self.pending_s = -1.0

    def began(self, now: float) -> None:
        """An idle node was given work."""
        self.mark = now

    def first_token(self, uncached: int, now: float) -> None:
        gap = now - self.mark
        self.mark = now
        if gap < SAME_STEP_S and self.pending_s >= 0:
            self.pending_tokens += uncached
            self.pending_s += gap
            return
        if self.pending_s >= 0:
            self.learn(self.pending_tokens, self.pending_s)
        self.pending_tokens, self.pending_s = uncached, gap

    def learn(self, tokens: int, seconds: float) -> None:
        line = self.line
        if line.n > 10:
            seconds = min(seconds, OUTLIER * (self.base_s + tokens * self.token_s) + GUESS_BASE_S)
        line.learn(tokens, seconds)
        n, sx, _, sy, _ = line.totals()
        usual = max(self.full, sx / n)
        whole_s = line.at(usual)
        if usual < 1.5 * self.full and line.a > 0 and whole_s > 0:
            # Short prompts: many are computed in a step, and a backlog of them takes full steps. That is also what stays known
            # when all steps are alike, and the line through them could have any slope.
            self.base_s, self.token_s = line.a, whole_s / usual
        elif line.b <= 0:
            self.base_s, self.token_s = sy / n, 1e-9
        elif line.a < 0:
            self.base_s, self.token_s = 0.0, sy / sx
        else:
            self.base_s, self.token_s = line.a, line.b


class Steps:
    """An engine's step, learned from counts alone: `c0 + c1 * decoding sequences + c3 * prefill tokens`, in seconds.

    Over an interval in which streams run, the steps fill the time. A stream gets one token a step, so with `rate` tokens a
    second for each stream, `streams` of them and `prefill` prompt tokens a second: `1 = c0*rate + c1*rate*streams + c3*prefill`.
    Recursive least squares with forgetting, over factors of the first guess so that all three have one scale.
    """

    __slots__ = ("factors", "first", "itl_s", "spread")

    def __init__(self, profile: Profile | None) -> None:
        self.first = (0.02, 2e-4, 1 / 10_000) if profile is None else (profile.c0_s, profile.c1_s or 1e-5, profile.c3_s)
        self.factors = [1.0, 1.0, 1.0]
        self.spread = [[DOUBT * (row == column) for column in range(3)] for row in range(3)]
        self.itl_s = 0.0
        """Running mean of the time between a stream's tokens; 0 while unknown."""

    def learn(self, tokens: int, stream_s: float, prefill_tokens: float, interval_s: float) -> None:
        """`tokens` came on streams that ran for `stream_s` together, beside `prefill_tokens` of prompts, in `interval_s`."""
        if tokens <= 0 or stream_s <= 0:
            return
        rate = tokens / stream_s
        self.itl_s = 1 / rate if not self.itl_s else self.itl_s * 0.7 + 0.3 / rate
        if stream_s < STREAMED * interval_s:
            return
        c0, c1, c3 = self.first
        x = (c0 * rate, c1 * tokens / interval_s, c3 * prefill_tokens / interval_s)
        spread = self.spread
        reach = [sum(cell * term for cell, term in zip(row, x, strict=True)) for row in spread]
        gain = FORGET + sum(term * part for term, part in zip(x, reach, strict=True))
        error = 1.0 - sum(factor * term for factor, term in zip(self.factors, x, strict=True))
        self.factors = [min(50.0, max(0.02, factor + part / gain * error)) for factor, part in zip(self.factors, reach, strict=True)]
        for row in range(3):
            for column in range(3):
                spread[row][column] = (spread[row][column] - reach[row] * reach[column] / gain) / FORGET
        if max(spread[0][0], spread[1][1], spread[2][2]) > DOUBT:
            # What is not excited would grow without end, and then jump at the first surprise.
            self.spread = [[cell * 0.5 for cell in row] for row in spread]

    def parts(self) -> tuple[float, float]:
        """Seconds of a step without prefill: of itself, and for each stream."""
        return self.first[0] * self.factors[0], self.first[1] * self.factors[1]

    @property
    def token_s(self) -> float:
        """What a prompt token adds to a step."""
        return self.first[2] * self.factors[2]


FORGET = 0.98
DOUBT = 10.0
"""Variance of the first guess's factors, in units of one interval's error."""
STREAMED = 0.5
"""Intervals with fewer streams on average tell of idling, not of steps."""
AIM = 0.8
"""Share of the promised time between tokens to aim at first: answers differ, and their mean must leave most of them inside it."""
AIM_LEAST, AIM_MOST = 0.6, 0.97
MISSED = 0.02
"""Share of the paced answers that may take longer between tokens than promised: with none, the fleet would idle for the rest."""
NARROW = 0.04
"""How much less is aimed at for each answer that did."""
LEAST_SHARE = 0.05
