"""Admission by tenant: under overload nobody's requests keep out those of a tenant that is served less.

With deadlines the queue holds only what can be served in time, so that what is admitted decides who is served. So a request of
a tenant that was given more than the mean, and than another with recent refusals, is admitted only if a request of that other
one would still fit behind it. Counters are as those of `core.fairness`, but nobody is lifted: whoever asks seldom is served in
full, as long as what it asks for is less than its share.

Where memory is what is short, or the time that streams leave for prompts, a request fits or does not within its short deadline,
and no order of the queue helps who finds it full. So there the most served tenants leave some of it free, as trunks are
reserved in telephone networks: as much as lets the requests of those that were served much less find room.
"""

from __future__ import annotations

from math import inf

from penstock.core.bands import Bands
from penstock.core.fairness import Account, Fairness, Ranks

RECENT_S = 30.0
"""A tenant refused within this time wants more than it gets; one not seen for as long is taken to have had the mean."""
TOLERANCE = 0.05
ROOM = 0.7
"""Share of that room which those who are served more may fill: what is refused comes in bursts."""
KEPT_MOST = 0.3
"""Of a node's memory, at most so much is kept free of those who are served most."""
LOST = 0.05
"""Share of the requests of those who are served less that may be lost where nodes are full: with none, much would lie idle."""
STEP = 2e-3
KEPT_HALF_LIFE_S = 300.0
"""Of what is kept while none of them come."""
MODEST = 0.5
"""Who was given less than this share of what the most served was is served less."""

OWN = 64
"""Tenants whose prompt lengths are counted each by itself; those beyond are counted together."""


class Claim:
    """When a tenant was last seen and refused, and how long its more pressing requests that were refused could have waited.

    `bands` are its prompt lengths: what one tenant's are admitted of says nothing of another's.
    """

    __slots__ = ("account", "bands", "refused_at", "room_s", "seen_at")

    def __init__(self, account: Account, bands: Bands, now: float) -> None:
        self.account, self.bands = account, bands
        self.seen_at, self.refused_at = now, -RECENT_S
        self.room_s = 0.0


class Claims:
    __slots__ = ("books", "kept", "known", "levelled_at", "mean", "most", "refused", "shared", "wanting")

    def __init__(self) -> None:
        self.books = Fairness()
        self.refused = Ranks(self.books)
        self.known: dict[Account, Claim] = {}
        self.shared = Bands()
        self.levelled_at, self.mean, self.most, self.wanting = -inf, 0.0, 0.0, 0.0
        self.kept = 0.0
        """Where nodes are full, the share of memory that the most served tenant leaves free; others less, as they were given less."""

    def claim(self, tenant: str, now: float) -> Claim:
        account = self.books.account(tenant, now)
        claim = self.known.get(account)
        if claim is None:
            if len(self.known) > 2 * len(self.books.accounts) + OWN:
                self._forget()
            claim = self.known[account] = Claim(account, Bands() if len(self.known) < OWN else self.shared, now)
            account.counter = max(account.counter, self._level(now))
        return claim

    def served(self, tenant: str, tokens: float, now: float) -> None:
        """A request of weighted `tokens` was dispatched."""
        claim = self.claim(tenant, now)
        if now - claim.seen_at > RECENT_S:
            claim.account.counter = max(claim.account.counter, self._level(now))
        claim.seen_at = now
        self.books.charge(claim.account, tokens, now)

    def correct(self, tenant: str, tokens: float, at: float) -> None:
        """A request took more than it was charged, or less: then `tokens` are negative."""
        account = self.books.accounts.get(tenant)
        if account is not None:
            self.books.charge(account, tokens, at)

    def refuse(self, tenant: str, room_s: float, now: float) -> None:
        """A request that could have waited `room_s` was refused."""
        claim = self.claim(tenant, now)
        if now - claim.refused_at > RECENT_S:
            claim.room_s = room_s
        # The low end counts: room for its most pressing requests is room for all.
        claim.room_s += (0.3 if room_s < claim.room_s else 0.03) * (room_s - claim.room_s)
        claim.refused_at = claim.seen_at = now
        self.refused.join(claim.account)

    def rank(self, tenant: str, now: float) -> float:
        """From 0 to 1: what the tenant was given of late over what the most served was."""
        level = self._level(now)
        most = self.most * self.books.scale(now)
        if not most or not level:
            return 1.0
        known = self.books.accounts.get(tenant)
        return 0.0 if known is None else min(1.0, known.counter / most)

    def leaves(self, tenant: str, now: float) -> float:
        """The share of a node's memory that a request of the tenant has to leave free."""
        if not self.kept:
            return 0.0
        # Looked at first: that lets what is kept fade.
        rank = self.rank(tenant, now)
        return self.kept * rank

    def short(self, tenant: str, lost: bool, now: float) -> None:
        """Nodes are full, and a request of the tenant was admitted, or lost: keep so much free that few of the modest ones' are."""
        if self.rank(tenant, now) < MODEST:
            self.kept = min(KEPT_MOST, max(0.0, self.kept + STEP * (lost - LOST)))

    def ahead_of(self, tenant: str, now: float) -> float | None:
        """How long a request of the tenant that is served least, and was refused, could wait, if this tenant has to leave it room.

        One that was given less than the mean never has to, nor less than the mean of those that want more: what others do not
        use belongs to all.
        """
        counter = self.books.account(tenant, now).counter
        if counter <= max(self._level(now), self.wanting * self.books.scale(now)):
            return None
        least = self._least(now)
        if least is None or counter <= least.counter * (1.0 + TOLERANCE):
            return None
        return ROOM * self.known[least].room_s

    def _level(self, now: float) -> float:
        """The mean over tenants seen of late, scaled as their counters are; looked at anew once a second, less often for many."""
        if now - self.levelled_at > max(1.0, 1e-3 * len(self.known)):
            if self.kept:
                self.kept *= 0.5 ** ((now - self.levelled_at) / KEPT_HALF_LIFE_S)
            self.levelled_at = now
            counters = [account.counter for account, claim in self.known.items() if now - claim.seen_at <= RECENT_S]
            wanting = [account.counter for account, claim in self.known.items() if now - claim.refused_at <= RECENT_S]
            self.wanting = sum(wanting) / len(wanting) / self.books.scale(now) if wanting else 0.0
            self.mean = sum(counters) / len(counters) / self.books.scale(now) if counters else 0.0
            self.most = max(counters) / self.books.scale(now) if counters else 0.0
        return self.mean * self.books.scale(now)

    def _least(self, now: float) -> Account | None:
        while (least := self.refused.first()) is not None:
            if now - self.known[least].refused_at <= RECENT_S:
                return least
            self.refused.leave(least)
        return None

    def _forget(self) -> None:
        alive = set(self.books.accounts.values()) | set(self.refused.seated)
        self.known = {account: claim for account, claim in self.known.items() if account in alive}
