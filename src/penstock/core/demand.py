"""How much is asked for, by priority and tenant: requests and prefill that come in to be served, whether they wait or not."""

from __future__ import annotations

from penstock.core.charge import cost
from penstock.core.flight import Flight

HALF_LIFE_S = 30.0
"""Longer than that of what is served: arrivals scatter, and it is their mean over the next seconds that is looked for."""
LEAST_S = 2.0
"""What came in less than this is not taken for a rate."""
GROUPS = 1_024

Key = tuple[int, str]
"""Priority and tenant; of all tenants together the name is empty, and not told apart from one without a name."""


class Demand:
    """One group's."""

    __slots__ = ("at", "came", "span_s", "tokens", "work_s")

    def __init__(self, now: float) -> None:
        self.came = self.work_s = self.span_s = self.tokens = 0.0
        self.at = now

    def add(self, work_s: float, now: float, tokens: float = 0.0) -> None:
        passed = now - self.at
        if passed > 0.0:
            keep = 0.5 ** (passed / HALF_LIFE_S)
            self.span_s = (self.span_s + passed) * keep
            self.came *= keep
            self.tokens *= keep
            self.work_s *= keep
            self.at = now
        self.came += 1.0
        self.work_s += work_s
        self.tokens += tokens

    def rates(self, now: float) -> tuple[float, float]:
        """Requests, and seconds of prefill, a second."""
        passed = now - self.at
        keep = 0.5 ** (passed / HALF_LIFE_S)
        span_s = max(LEAST_S, (self.span_s + passed) * keep)
        return self.came * keep / span_s, self.work_s * keep / span_s


class Demands:
    """Those of one model; beyond `GROUPS` further tenants are not told apart from those that ask for nothing."""

    __slots__ = ("groups", "opened_at", "priorities")

    def __init__(self) -> None:
        self.priorities: dict[int, Demand] = {}
        self.groups: dict[Key, Demand] = {}

    def add(self, flight: Flight, now: float) -> None:
        demand = self.priorities.get(flight.priority)
        if demand is None:
            demand = self.priorities[flight.priority] = Demand(now)
        demand.add(flight.own_s, now)
        if flight.account is not None:
            key = (flight.priority, flight.request.tenant)
            demand = self.groups.get(key)
            if demand is None:
                if len(self.groups) >= GROUPS:
                    self.forget(now)
                    if len(self.groups) >= GROUPS:
                        return
                demand = self.groups[key] = Demand(now)
            demand.add(flight.own_s, now, cost(flight))

    def forget(self, now: float) -> None:
        self.groups = {key: demand for key, demand in self.groups.items() if now - demand.at < 2 * HALF_LIFE_S}

    def of(self, key: Key, now: float) -> tuple[float, float]:
        demand = self.groups.get(key)
        return (0.0, 0.0) if demand is None else demand.rates(now)

    def above(self, priority: int, now: float) -> tuple[float, float]:
        """Of all higher priorities."""
        count = work_s = 0.0
        for other, demand in self.priorities.items():
            if other > priority:
                requests, seconds = demand.rates(now)
                count += requests
                work_s += seconds
        return count, work_s
