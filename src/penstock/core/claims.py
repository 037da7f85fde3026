"""Admission by tenant: under overload nobody's requests keep out those of a tenant that is served less.

With deadlines the queue holds only what can be served in time, so that what is admitted decides who is served. So the service
admitted is counted for each tenant, as `core.fairness` does for service given, and a request of one that was admitted more
than another with recent refusals is admitted only if a typical request of that one would still fit behind it.
"""

from __future__ import annotations

from penstock.core.fairness import Account, Fairness, Ranks

RECENT_S = 5.0
"""A tenant refused within this time wants more than it gets; one not seen for as long comes back from idling."""
TOLERANCE = 0.05


class Claim:
    """When a tenant was last seen and refused, and how long a request of it that was refused could have waited, on average."""

    __slots__ = ("refused_at", "room_s", "seen_at")

    def __init__(self, now: float) -> None:
        self.seen_at, self.refused_at = now, -RECENT_S
        self.room_s = 0.0


class Claims:
    __slots__ = ("books", "known", "refused")

    def __init__(self) -> None:
        self.books = Fairness()
        self.refused = Ranks(self.books)
        self.known: dict[Account, Claim] = {}

    def note(self, tenant: str, tokens: float, admitted: bool, room_s: float, now: float) -> None:
        """A request of weighted `tokens` that could have waited `room_s` was admitted or refused."""
        account = self.books.account(tenant, now)
        claim = self.known.get(account)
        if claim is None or now - claim.seen_at > RECENT_S:
            self.books.lift(account, self.refused)
        if claim is None:
            if len(self.known) > 2 * len(self.books.accounts) + 64:
                self._forget()
            claim = self.known[account] = Claim(now)
        claim.seen_at = now
        if admitted:
            self.books.charge(account, tokens, now)
        else:
            claim.room_s = room_s if now - claim.refused_at > RECENT_S else claim.room_s + 0.1 * (room_s - claim.room_s)
            claim.refused_at = now
            self.refused.join(account)

    def withdrawn(self, tenant: str, tokens: float, now: float) -> None:
        """An admitted request was not served after all."""
        account = self.books.accounts.get(tenant)
        if account is not None:
            self.books.charge(account, -tokens, now)

    def crowds_out(self, tenant: str, wait_after_s: float, now: float) -> bool:
        """Whether admitting a request would leave one of the tenant that is served least, and was refused, to wait for too long."""
        least = self._least(now)
        if least is None:
            return False
        account = self.books.account(tenant, now)
        return account.counter > least.counter * (1.0 + TOLERANCE) and wait_after_s > self.known[least].room_s

    def _least(self, now: float) -> Account | None:
        while (least := self.refused.first()) is not None:
            if now - self.known[least].refused_at <= RECENT_S:
                return least
            self.refused.leave(least)
        return None

    def _forget(self) -> None:
        alive = set(self.books.accounts.values()) | set(self.refused.seated)
        self.known = {account: claim for account, claim in self.known.items() if account in alive}
