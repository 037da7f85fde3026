"""Admission by tenant: under overload nobody's requests keep out those of a tenant that is served less.

With deadlines the queue holds only what can be served in time, so that what is admitted decides who is served. So the service
admitted is counted for each tenant, as `core.fairness` does for service given, and a request of one that was admitted more
than another with recent refusals is admitted only if a typical request of that one would still fit behind it.
"""

from __future__ import annotations

from penstock.core.bands import Bands
from penstock.core.fairness import Account, Fairness, Ranks

RECENT_S = 30.0
"""A tenant refused within this time wants more than it gets."""
IDLE_S = 5.0
"""One not seen for as long comes back from idling."""
TOLERANCE = 0.05
ROOM = 0.7
"""Share of that room which those who are served more may fill: what is refused comes in bursts."""


OWN = 64
"""Tenants whose prompt lengths are counted each by itself; those beyond are counted together."""


class Claim:
    """When a tenant was last seen and refused, and how long its more pressing requests that were refused could have waited.

    `bands` are its prompt lengths: what one tenant's are admitted of says nothing of another's.
    """

    __slots__ = ("bands", "refused_at", "room_s", "seen_at")

    def __init__(self, bands: Bands, now: float) -> None:
        self.bands = bands
        self.seen_at, self.refused_at = now, -RECENT_S
        self.room_s = 0.0


class Claims:
    __slots__ = ("books", "known", "refused", "shared")

    def __init__(self) -> None:
        self.books = Fairness()
        self.refused = Ranks(self.books)
        self.known: dict[Account, Claim] = {}
        self.shared = Bands()

    def claim(self, tenant: str, now: float) -> Claim:
        account = self.books.account(tenant, now)
        claim = self.known.get(account)
        if claim is None:
            if len(self.known) > 2 * len(self.books.accounts) + OWN:
                self._forget()
            claim = self.known[account] = Claim(Bands() if len(self.known) < OWN else self.shared, now)
            self.books.lift(account, self.refused)
        return claim

    def note(self, tenant: str, tokens: float, admitted: bool, room_s: float, now: float) -> None:
        """A request of weighted `tokens` that could have waited `room_s` was admitted or refused."""
        claim = self.claim(tenant, now)
        account = self.books.account(tenant, now)
        if now - claim.seen_at > IDLE_S:
            self.books.lift(account, self.refused)
        claim.seen_at = now
        if admitted:
            self.books.charge(account, tokens, now)
        else:
            if now - claim.refused_at > RECENT_S:
                claim.room_s = room_s
            # The low end counts: room for its most pressing requests is room for all.
            claim.room_s += (0.3 if room_s < claim.room_s else 0.03) * (room_s - claim.room_s)
            claim.refused_at = now
            self.refused.join(account)

    def withdrawn(self, tenant: str, tokens: float, now: float) -> None:
        """An admitted request was not served after all."""
        account = self.books.accounts.get(tenant)
        if account is not None:
            self.books.charge(account, -tokens, now)

    def ahead_of(self, tenant: str, now: float) -> float | None:
        """How long a typical request of the tenant that is served least, and was refused, could wait, if this one is served more."""
        least = self._least(now)
        if least is None or self.books.account(tenant, now).counter <= least.counter * (1.0 + TOLERANCE):
            return None
        return ROOM * self.known[least].room_s

    def _least(self, now: float) -> Account | None:
        while (least := self.refused.first()) is not None:
            if now - self.known[least].refused_at <= RECENT_S:
                return least
            self.refused.leave(least)
        return None

    def _forget(self) -> None:
        alive = set(self.books.accounts.values()) | set(self.refused.seated)
        self.known = {account: claim for account, claim in self.known.items() if account in alive}
