"""Which tenants flood, and how much of the fleet is kept for the others meanwhile.

A step that computes nothing but one token for each of its streams lasts `c0 / (1 - busy)`, where `busy` is the share of the
node's time that its streams and prompts take beyond `c0`: each stream makes the step longer, and longer steps leave more
streams on the node. So what tenants need, in node seconds a second, tells how much longer the steps of others become.

A tenant may be large, and the fleet busy or too small: that alone is no flood, and keeping nodes for others costs work. It is
one when large tenants ask for many times what all others do, and far more than is usual for them, or more than the fleet can do;
the more and the longer, the more is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.core.fairness import Account

NEED_S = 1.0
"""Over how long it is watched what a tenant asks for."""
USUAL_S = 300.0 / log(2.0)
"""Over how long it becomes usual: half of it in five minutes."""
START_S = 10.0
"""How long it takes to see what is usual."""
DOMINANT = 2.0
"""Large tenants flood only if they ask for this many times what all others ask for."""
SURGE, OUTRIGHT = 2.0, 4.0
"""Those surge that ask for this many times what is usual for them; at the start, for this many times what all others ask for."""
LARGE = 1.5
"""A tenant is large that asks for more than its share and for this many times the mean of the others."""
STAY = 0.8
"""Who floods does so until it asks for less than this share of what made it stand out."""
FULL = 0.8
"""A fleet that is asked for more is full: a surge is in the others' way."""
DEBT_S, DEBT_MOST_S = 2.0, 10.0
"""Seconds of the whole fleet's work asked for beyond what it can do: below, it may be chance."""
EXCESS = 0.5
"""Asked for this much more than it can do, the fleet is flooded in full."""
PATIENCE_S = 10.0
"""Over how long large tenants' requests are seen to wait until that counts in full."""


class Flood:
    """`level` is from 0, none, to 1: all that the others need is kept for them."""

    __slots__ = ("debt_s", "level", "others_s", "patience", "slower")

    def __init__(self, slower: float = 0.35) -> None:
        self.slower = slower
        """How much longer, as a share, the others' steps may be than if they were alone."""
        self.others_s = 0.0
        """Node seconds a second, on average, of the tenants that do not flood."""
        self.debt_s = self.patience = self.level = 0.0

    def kept(self, nodes: int) -> int:
        """Nodes that a tenant that floods is kept off; never all."""
        busy = busy_most(self.others_s / nodes, self.slower)
        return min(nodes - 1, round(self.level * -(-self.others_s // busy))) if busy > 0.0 else 0

    def look(self, accounts: Sequence[Account], share_s: float, nodes: int, passed_s: float, seen_s: float) -> set[Account]:
        """Which tenants are large, so many seconds after the last look and `seen_s` after the first."""
        known = seen_s > START_S
        need_s = heed(accounts, passed_s, known)
        asked = need_s / nodes
        self.debt_s = min(DEBT_MOST_S, max(0.0, self.debt_s + (asked - 1.0) * passed_s))
        waits = any(account.rich for account in accounts)
        self.patience += (1.0 - exp(-passed_s / PATIENCE_S)) * (waits - self.patience)
        found = large(accounts, need_s, share_s)
        of_large = sum(account.need_s for account in found)
        if known:
            surges = asked > FULL and any(account.need_s > SURGE * account.usual_s for account in found)
        else:
            surges = of_large > OUTRIGHT * (need_s - of_large) > 0.0
        of_large = sum(account.need_s for account in accounts if account.rich or account in found)
        if not of_large > DOMINANT * (need_s - of_large) > 0.0:
            self.level = 0.0
            return found
        over = min(1.0, max(0.0, asked - 1.0) / EXCESS) if self.debt_s > DEBT_S else 0.0
        self.level = 1.0 if surges else max(over, self.patience)
        return found


def busy_most(others: float, slower: float) -> float:
    """How busy nodes may be on which steps are to be longer by no more than this share than where `others`, a share, are alone."""
    return 1.0 - (1.0 - min(1.0, others)) / (1.0 + slower)


def heed(accounts: Iterable[Account], passed_s: float, known: bool) -> float:
    """Take what was asked for since the last look into what tenants need; the sum of it."""
    follow, used, total = 1.0 - exp(-passed_s / NEED_S), 1.0 - exp(-passed_s / USUAL_S), 0.0
    for account in accounts:
        account.need_s += follow * (account.asked_s / passed_s - account.need_s)
        account.asked_s = 0.0
        account.usual_s += (used if known else follow) * (account.need_s - account.usual_s)
        total += account.need_s
    return total


def large(accounts: Sequence[Account], total_s: float, share_s: float) -> set[Account]:
    others, found = max(1, len(accounts) - 1), set()
    for account in accounts:
        need_s = account.need_s / STAY if account.apart else account.need_s
        if need_s > share_s and need_s > LARGE * (total_s - account.need_s) / others > 0.0:
            found.add(account)
    return found
