"""How fast a model's queue drains, measured where it shows: at the head, while something waits.

Counts with a half-life, of requests and of their predicted prefill. Where slots or memory limit, time goes by requests; where prefill
does, by prefill; `blocked` says how often it was slots.
"""

from __future__ import annotations

from math import log

from penstock.core.flight import Flight

HALF_LIFE_S = 5.0
MEAN = 1.0 / log(2.0)
"""Of half-lives: how long a time all that is remembered of it adds up to."""
STEADY_S = 25.0
"""Half-life of the rate that waits are told by: what little is left for a low priority asks for a mean over many departures."""
STEADY_LEFT = 20.0
"""Departures that this half-life has at least."""
SURPRISE = 2.5
"""Roots of their expected number by which departures of late differ from that rate before it is given up for theirs."""
RESTART = 0.25
AGE_S = 0.2
"""What is counted is aged this often."""
RATE_S = 0.5
"""Measured for less than this, a rate is none."""
FIRST_STEP = 1.05
"""By which the middle of first tokens' times moves with each: a mean would follow the few that take long."""
CLASSES = 256


class Drain:
    """One queue's. `served` are all requests that were forwarded, by class, whether they waited or not."""

    __slots__ = ("_at", "_since", "_span_s", "_steady", "_waiting", "_watched_s", "blocked", "first_s", "left", "served", "work_s")

    def __init__(self) -> None:
        self.left = self.work_s = 0.0
        """Requests that left the queue by its head, and their prefill."""
        self._span_s = self._watched_s = 0.0
        """Of that, the seconds in which something waited, and all seconds."""
        self._steady = (0.0, 0.0, 0.0)
        """Requests, prefill and seconds, the same but for a longer half-life."""
        self._at = self._since = 0.0
        self._waiting = False
        self.served: dict[str, float] = {}
        self.blocked = 0.0
        """Running share of departures with no slot or memory free before."""
        self.first_s = 0.0
        """A middle one of the times from a stream's forwarding to its first token."""

    def waits(self, waiting: bool, now: float) -> None:
        """Something waits from now on, or nothing does."""
        if now - self._at >= AGE_S:
            self._age(now)
        if waiting is not self._waiting:
            if not waiting:
                self._span_s += now - self._since
                count, work_s, span_s = self._steady
                self._steady = (count, work_s, span_s + now - self._since)
            self._waiting, self._since = waiting, now

    def forwarded(self, flight: Flight, now: float) -> None:
        if now - self._at >= AGE_S:
            self._age(now)
        name = flight.task.name
        if name in self.served:
            self.served[name] += 1
        elif len(self.served) < CLASSES:
            self.served[name] = 1.0

    def departed(self, flight: Flight, blocked: bool, now: float) -> None:
        """It left the queue by its head, for a node or because its time was over."""
        if now - self._at >= AGE_S:
            self._age(now)
        self.left += 1
        self.work_s += flight.own_s
        count, work_s, span_s = self._steady
        self._steady = (count + 1.0, work_s + flight.own_s, span_s)
        self.blocked += 0.02 * (blocked - self.blocked)

    def first_token(self, took_s: float) -> None:
        if took_s > self.first_s:
            self.first_s = self.first_s * FIRST_STEP if self.first_s else took_s
        else:
            self.first_s /= FIRST_STEP

    # -- what follows from it

    @property
    def rate(self) -> float:
        """Requests a second that leave the queue while something waits; 0 while unknown."""
        return self.left / self._span_s if self._span_s > RATE_S else 0.0

    @property
    def steady(self) -> tuple[float, float]:
        """Requests and seconds of prefill a second that leave the queue while something waits, over a longer time; 0 while unknown."""
        count, work_s, span_s = self._steady
        return (count / span_s, work_s / span_s) if span_s > RATE_S else (0.0, 0.0)

    @property
    def total_rate(self) -> float:
        """Requests forwarded a second, of late; 0 while unknown."""
        return sum(self.served.values()) / self._watched_s if self._watched_s > RATE_S else 0.0

    def class_rate(self, name: str) -> float:
        """Requests of the class forwarded a second, of late; 0 while unknown."""
        return self.served.get(name, 0.0) / self._watched_s if self._watched_s > RATE_S else 0.0

    def _age(self, now: float) -> None:
        passed, self._at = now - self._at, now
        keep = 0.5 ** (passed / HALF_LIFE_S)
        self._watched_s = self._watched_s * keep + MEAN * HALF_LIFE_S * (1.0 - keep)
        if self._waiting:
            # While nothing waits nothing is learned of the queue, and what is known keeps its weight.
            waited_s, self._since = now - self._since, now
            self._span_s = self._span_s * keep + MEAN * HALF_LIFE_S * (1.0 - 0.5 ** (waited_s / HALF_LIFE_S))
            self.left *= keep
            self.work_s *= keep
            self._age_steady(passed, waited_s)
        for name in self.served:
            self.served[name] *= keep

    def _age_steady(self, passed: float, waited_s: float) -> None:
        count, work_s, span_s = self._steady
        half_life = max(STEADY_S, STEADY_LEFT * span_s / count) if count > 1.0 else STEADY_S
        keep = 0.5 ** (passed / half_life)
        count, work_s, span_s = count * keep, work_s * keep, span_s * keep
        span_s += MEAN * half_life * (1.0 - 0.5 ** (waited_s / half_life))
        expected = count / span_s * self._span_s if span_s else 0.0
        if abs(self.left - expected) > SURPRISE * (expected + 1.0) ** 0.5:
            # What was seen of late is still half of what was before: it keeps little weight.
            count, work_s, span_s = RESTART * self.left, RESTART * self.work_s, RESTART * self._span_s
        self._steady = (count, work_s, span_s)
