"""How fast a model's queue drains, measured where it shows: at the head, while something waits.

Counts with a half-life, of requests and of their predicted prefill. Where slots or memory limit, time goes by requests; where prefill
does, by prefill; `blocked` says how often it was slots. What comes with a higher priority goes before those that wait already, so what
is left for a priority is the rate less what comes above it.
"""

from __future__ import annotations

from penstock.core.flight import Flight

HALF_LIFE_S = 5.0
AGE_S = 0.2
"""What is counted is aged this often."""
RATE_S = 0.5
"""Measured for less than this, a rate is none."""
LEAST_SHARE = 0.1
"""Of the rate, what a priority is taken to be left with, whatever comes above it."""
FIRST_STEP = 1.05
"""By which the middle of first tokens' times moves with each: a mean would follow the few that take long."""
CLASSES = 256
PRIORITIES = 6
"""1 to 5; nothing has 0."""


class Drain:
    """One queue's. `served` are all requests that were forwarded, by class, whether they waited or not."""

    __slots__ = ("_at", "_came", "_since", "_span_s", "_waiting", "_watched_s", "blocked", "first_s", "left", "served", "work_s")

    def __init__(self) -> None:
        self.left = self.work_s = 0.0
        """Requests that left the queue by its head, and their prefill."""
        self._span_s = self._watched_s = 0.0
        """Of that, the seconds in which something waited, and all seconds."""
        self._at = self._since = 0.0
        self._waiting = False
        self._came = [[0.0, 0.0] for _ in range(PRIORITIES)]
        """By priority: requests that came to be served, and their prefill."""
        self.served: dict[str, float] = {}
        self.blocked = 0.0
        """Running share of departures with no slot or memory free before."""
        self.first_s = 0.0
        """Running mean of the time from a stream's forwarding to its first token."""

    def waits(self, waiting: bool, now: float) -> None:
        """Something waits from now on, or nothing does."""
        if waiting is not self._waiting:
            if not waiting:
                self._span_s += now - self._since
            self._waiting, self._since = waiting, now

    def came(self, flight: Flight, now: float) -> None:
        """A request was accepted."""
        if now - self._at >= AGE_S:
            self._age(now)
        came = self._came[flight.priority]
        came[0] += 1
        came[1] += flight.own_s

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
    def work_rate(self) -> float:
        """Seconds of prefill a second, likewise."""
        return self.work_s / self._span_s if self._span_s > RATE_S else 0.0

    @property
    def total_rate(self) -> float:
        """Requests forwarded a second, of late; 0 while unknown."""
        return sum(self.served.values()) / self._watched_s if self._watched_s > RATE_S else 0.0

    def class_rate(self, name: str) -> float:
        """Requests of the class forwarded a second, of late; 0 while unknown."""
        return self.served.get(name, 0.0) / self._watched_s if self._watched_s > RATE_S else 0.0

    def wait_s(self, priority: int, ahead: float, ahead_s: float) -> float | None:
        """Predicted seconds until `ahead` requests with `ahead_s` of prefill have left; None while no rate is known."""
        if self._span_s <= RATE_S or self.left < 1:
            return None
        above = self._came[priority + 1 :]
        watched_s = max(self._watched_s, RATE_S)
        per_s, work_per_s = self.left / self._span_s, self.work_s / self._span_s
        left = max(LEAST_SHARE * per_s, per_s - sum(came[0] for came in above) / watched_s)
        by_count = ahead / left
        if work_per_s <= 0 or ahead_s <= 0:
            return by_count
        left_s = max(LEAST_SHARE * work_per_s, work_per_s - sum(came[1] for came in above) / watched_s)
        return self.blocked * by_count + (1 - self.blocked) * ahead_s / left_s

    def _age(self, now: float) -> None:
        passed, self._at = now - self._at, now
        keep = 0.5 ** (passed / HALF_LIFE_S)
        self._watched_s = (self._watched_s + passed) * keep
        if self._waiting:
            # While nothing waits nothing is learned of the queue, and what is known keeps its weight.
            self._span_s = (self._span_s + now - self._since) * keep
            self._since = now
            self.left *= keep
            self.work_s *= keep
        for came in self._came:
            came[0] *= keep
            came[1] *= keep
        for name in self.served:
            self.served[name] *= keep
