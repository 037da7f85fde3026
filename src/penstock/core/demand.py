"""How much is asked for, by priority and tenant: requests, their prefill and their tokens that come in to be served, whether they wait
or not.
"""

from __future__ import annotations

from math import log

from penstock.core.charge import cost
from penstock.core.fairness import Account
from penstock.core.flight import Flight

HALF_LIFE_S = 20.0
"""Arrivals scatter, and it is their mean over the next seconds that is looked for."""
MEAN_S = HALF_LIFE_S / log(2.0)
"""How long a time all that is remembered of it adds up to."""
AGE_S = 0.2
"""What is counted is aged this often."""
LEAST_S = 2.0
"""What came in less than this is no rate yet."""
TENANTS = 256
"""Told apart in one priority; the others are taken to ask for nothing."""


class Demand:
    __slots__ = ("at", "count", "span_s", "tokens", "work_s")

    def __init__(self, now: float) -> None:
        self.count = self.work_s = self.tokens = self.span_s = 0.0
        self.at = now

    def add(self, work_s: float, tokens: float, now: float) -> None:
        passed = now - self.at
        if passed >= AGE_S:
            keep = 0.5 ** (passed / HALF_LIFE_S)
            self.span_s = self.span_s * keep + MEAN_S * (1.0 - keep)
            self.count *= keep
            self.work_s *= keep
            self.tokens *= keep
            self.at = now
        self.count += 1.0
        self.work_s += work_s
        self.tokens += tokens

    def rates(self, now: float) -> tuple[float, float]:
        """Requests, and seconds of prefill, a second."""
        passed = now - self.at
        keep = 0.5 ** (passed / HALF_LIFE_S)
        share = keep / max(LEAST_S, self.span_s * keep + MEAN_S * (1.0 - keep))
        return self.count * share, self.work_s * share


class Demands:
    """Those of one model."""

    __slots__ = ("priorities", "tenants")

    def __init__(self) -> None:
        self.priorities: dict[int, Demand] = {}
        self.tenants: dict[int, dict[Account, Demand]] = {}

    def add(self, flight: Flight, now: float) -> None:
        demand = self.priorities.get(flight.priority)
        if demand is None:
            demand = self.priorities[flight.priority] = Demand(now)
        demand.add(flight.own_s, 0.0, now)
        account = flight.account
        if account is None:
            return
        tenants = self.tenants.get(flight.priority)
        if tenants is None:
            tenants = self.tenants[flight.priority] = {}
        demand = tenants.get(account)
        if demand is None:
            if len(tenants) >= TENANTS:
                self._forget(tenants, now)
                if len(tenants) >= TENANTS:
                    return
            demand = tenants[account] = Demand(now)
        demand.add(flight.own_s, cost(flight), now)

    def _forget(self, tenants: dict[Account, Demand], now: float) -> None:
        for account in [account for account, demand in tenants.items() if now - demand.at > HALF_LIFE_S]:
            del tenants[account]

    def above(self, priority: int, now: float) -> tuple[float, float]:
        """Requests, and seconds of prefill, a second of all higher priorities."""
        count = work_s = 0.0
        for other, demand in self.priorities.items():
            if other > priority:
                requests, seconds = demand.rates(now)
                count += requests
                work_s += seconds
        return count, work_s
