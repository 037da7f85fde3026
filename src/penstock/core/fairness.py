"""Fairness between tenants: a virtual token counter each (VTC, Sheng et al., OSDI'24), and who has the least.

Service is input + 2 x output tokens. Counters halve every `HALF_LIFE_S`; they are kept multiplied by 2^(time / half-life), so
that decay changes no stored number and no order. Who comes back from idling starts level with the least served of the active
ones: nobody saves up. Nothing is counted while there is one tenant.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush, heapreplace
from math import inf, log

from penstock.core.flood import Flood

HALF_LIFE_S = 60.0
OUTPUT_WEIGHT = 2.0
REBASE = 512.0
"""Half-lives after which the stored counters are scaled down again: a float ends at 2^1023."""
SURVEY_S, SURVEY_EACH_S = 0.1, 2e-4
"""Least time between surveys, and for each account, so that many cost no more of the time than few."""
WANT_S = 0.4
"""Over how long it is watched whether a tenant has requests waiting."""
LEARN_S = 20.0
AWAY_S = 10.0
"""Nothing is kept for a tenant that has had no request for this long."""
LEAST_S = 0.01
"""Node seconds below which a tenant without requests is not counted among the active ones."""
KEPT = 4_096
"""Accounts up to this number are kept without looking for idle ones."""
RICH = 1.5
"""A tenant that waits for more although it was given this many times the mean of the others, and its share, is above it."""
BUSY = 0.7
"""How busy nodes are seen to be that are shared out."""
ACCOUNTS = 65_536
"""Accounts at most, but for tenants that have requests here."""


class Account:
    """A tenant's service, scaled; the node time it took, scaled and never lifted; its requests in the core; the ranks it stands in."""

    __slots__ = (
        "apart",
        "asked_s",
        "counter",
        "flights",
        "held_s",
        "lifted",
        "name",
        "need_s",
        "number",
        "ranks",
        "rich",
        "running",
        "seen_at",
        "usual_s",
        "want",
    )

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number
        self.counter = 0.0
        self.held_s = 0.0
        self.flights = self.running = 0
        self.seen_at = 0.0
        """When a request of it last came in."""
        self.lifted = False
        """It was below its counter and has not been served since."""
        self.want = 0.0
        """Share of the time of late that it had many requests waiting."""
        self.rich = False
        """It asks for more than its share while others are served: it may not take the nodes that those others need."""
        self.asked_s = self.need_s = self.usual_s = 0.0
        """Node time asked for since the last survey, for each second of late, and usually."""
        self.apart = False
        """It is kept off the nodes that others need: it is `rich`, or floods."""
        self.ranks: list[Ranks] = []


class Ranks:
    """Accounts by their counters, the least first: a heap whose entries are put right when they surface.

    An account's entry is the one that `seated` names; a counter that rose is noticed at the top, one that fell is told.
    """

    __slots__ = ("books", "epoch", "heap", "seated")

    def __init__(self, books: Fairness) -> None:
        self.books, self.epoch = books, books.epoch
        self.heap: list[tuple[float, float, int, Account]] = []
        self.seated: dict[Account, float] = {}

    def join(self, account: Account, tie: float = 0.0) -> None:
        """Among accounts of one level the least `tie` goes first."""
        if account in self.seated:
            return
        account.ranks.append(self)
        self._seat(account, tie)
        if len(self.heap) > 2 * len(self.seated) + 64:
            self._rebuild()

    def leave(self, account: Account) -> None:
        if self.seated.pop(account, None) is not None:
            account.ranks.remove(self)

    def lowered(self, account: Account) -> None:
        if self.seated[account] > account.counter:
            self._seat(account, inf)

    def first(self) -> Account | None:
        """The account with the least counter."""
        if self.epoch != self.books.epoch:
            self._rebuild()
        heap = self.heap
        while heap:
            counter, _, number, account = heap[0]
            if self.seated.get(account) != counter:
                heappop(heap)
            elif account.counter == counter:
                return account
            else:
                self.seated[account] = account.counter
                heapreplace(heap, (account.counter, inf, number, account))
        return None

    def _seat(self, account: Account, tie: float) -> None:
        self.seated[account] = account.counter
        heappush(self.heap, (account.counter, tie, account.number, account))

    def _rebuild(self) -> None:
        self.epoch = self.books.epoch
        self.seated = {account: account.counter for account in self.seated}
        self.heap = [(counter, inf, account.number, account) for account, counter in self.seated.items()]
        heapify(self.heap)


class Fairness:
    """The tenants' accounts. `several` once there was more than one: before that nothing is charged."""

    __slots__ = (
        "accounts",
        "active",
        "counted",
        "epoch",
        "flood",
        "numbered",
        "opened_at",
        "others_s",
        "several",
        "since",
        "surveyed_at",
        "sweep_at",
    )

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.epoch = self.numbered = 0
        self.since = 0.0
        self.several = False
        self.counted = False
        """The requests in the core have been given their accounts."""
        self.sweep_at = KEPT
        self.active = Ranks(self)
        self.others_s = 0.0
        """Node seconds a second, on average, of the tenants that are not above their share."""
        self.surveyed_at = self.opened_at = 0.0
        self.flood = Flood()

    def account(self, name: str, now: float) -> Account:
        known = self.accounts.get(name)
        if known is not None:
            return known
        if len(self.accounts) >= self.sweep_at:
            self.forget(now)
        self.numbered += 1
        opened = self.accounts[name] = Account(name, self.numbered)
        self.several = len(self.accounts) > 1
        return opened

    def alone(self, name: str) -> bool:
        """Whether it is the one tenant there is: then nothing is counted."""
        return not self.several and not self.counted and name in self.accounts

    def enter(self, account: Account, now: float) -> None:
        """A request of its tenant came in. The first after none is lifted to the least of those that have some."""
        account.seen_at = now
        if not account.flights:
            least = self.active.first()
            if least is not None and least.counter > account.counter:
                account.counter, account.lifted = least.counter, True
            self.active.join(account)
        account.flights += 1

    def leave(self, account: Account) -> None:
        account.flights -= 1
        if not account.flights:
            self.active.leave(account)

    def lift(self, account: Account, ranks: Ranks) -> bool:
        """Level with the least of those that wait in `ranks`; whether it was below before it was lifted."""
        least = ranks.first()
        if least is not None and least.counter > account.counter:
            account.counter, account.lifted = least.counter, True
        return account.lifted

    def scale(self, at: float) -> float:
        power: float = 2.0 ** ((at - self.since) / HALF_LIFE_S)
        return power

    def charge(self, account: Account, tokens: float, at: float) -> None:
        """Weighted tokens of service given at time `at`; negative ones take a prediction back."""
        if at - self.since > REBASE * HALF_LIFE_S:
            self._rebase(at)
        account.counter += tokens * self.scale(at)
        account.lifted = False
        if tokens < 0:
            account.counter = max(0.0, account.counter)
            for ranks in account.ranks:
                ranks.lowered(account)

    def survey(self, nodes: int, now: float) -> None:
        """Find who is above its share; now and then, and less often where there are very many."""
        passed_s = now - self.surveyed_at
        if passed_s < max(SURVEY_S, SURVEY_EACH_S * len(self.accounts)):
            return
        self.surveyed_at = now
        follow = min(1.0, passed_s / WANT_S)
        one = self.scale(now)
        known = [account for account in self.accounts.values() if account.flights or account.held_s > LEAST_S * one]
        total = sum(account.held_s for account in known)
        window_s = min(HALF_LIFE_S / log(2.0), max(1.0, now - self.opened_at)) * one
        share_s = BUSY * nodes / max(1, len(known)) * window_s
        others = 0.0
        waiting = [account.flights - account.running for account in known if account.flights > account.running]
        # One that waits in a crowd that is another's does not flood.
        crowd = 0.5 * sum(waiting) / len(waiting) if waiting else 0.0
        for account in known:
            mean = (total - account.held_s) / max(1, len(known) - 1)
            account.want += follow * ((account.flights - account.running > crowd) - account.want)
            # Once told apart it stays so while it waits: kept off nodes it is given less than its share.
            above = account.rich or (account.held_s > RICH * mean > 0.0 and account.held_s > share_s)
            account.rich = above and account.want > (0.1 if account.rich else 0.5)
        seen_s = now - self.opened_at
        large = self.flood.look(known, BUSY * nodes / max(1, len(known)), nodes, passed_s, seen_s)
        for account in known:
            account.apart = account.rich or account in large
            if not account.apart and (account.flights or now - account.seen_at < AWAY_S):
                others += account.held_s
        self.flood.others_s = others / window_s
        # Before enough was seen to tell what the others need, it is taken to be much.
        self.others_s = others / window_s if seen_s > LEARN_S else float(nodes)

    def service(self, account: Account, now: float) -> float:
        """Weighted tokens it was given of late, decayed."""
        return account.counter / self.scale(now)

    def forget(self, now: float) -> None:
        """Drop idle accounts that decayed to less than a token, and beyond `ACCOUNTS` the least of the idle ones."""
        least = self.scale(now)
        idle = [account for account in self.accounts.values() if not account.flights]
        gone = [account for account in idle if account.counter < least]
        if len(self.accounts) - len(gone) >= ACCOUNTS:
            idle.sort(key=lambda account: account.counter)
            gone = idle[: max(len(gone), len(self.accounts) - ACCOUNTS // 2)]
        self._drop(gone)
        self.sweep_at = max(KEPT, min(ACCOUNTS, 2 * len(self.accounts)))

    def _drop(self, gone: Iterable[Account]) -> None:
        for account in gone:
            del self.accounts[account.name]

    def _rebase(self, now: float) -> None:
        shrink = 2.0 ** (-(now - self.since) / HALF_LIFE_S)
        for account in self.accounts.values():
            account.counter *= shrink
            account.held_s *= shrink
        self.since = now
        self.epoch += 1
