"""Which tenants flood, and how much of the fleet is kept for the others meanwhile.

A step that computes nothing but one token for each of its streams lasts `c0 / (1 - busy)`, where `busy` is the share of the
node's time that its streams and prompts take beyond `c0`: each stream makes the step longer, and longer steps leave more
streams on the node. So what tenants need, in node seconds a second, tells how much longer the steps of others become.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, exp
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.core.fairness import Account

NEED_S = 1.0
"""Over how long it is watched what a tenant asks for."""
FULL = 0.8
"""A fleet of which more is asked for is full: from here on steps grow without end."""
STAY = 0.8
"""Who floods does so until it asks for less than this share of what made it stand out."""
LARGE = 1.5
"""A tenant stands out that asks for this many times the mean of the others."""


def busy_most(others: float, slower: float) -> float:
    """How busy nodes may be on which steps are to be longer by no more than this share than where `others`, a share, are alone."""
    return 1.0 - (1.0 - min(1.0, others)) / (1.0 + slower)


def kept(others_s: float, nodes: int, slower: float) -> int:
    """The nodes that others need to themselves who ask for `others_s` node seconds a second."""
    busy = busy_most(others_s / nodes, slower)
    return min(nodes - 1, ceil(others_s / busy)) if busy > 0.0 else 0


def heed(accounts: Sequence[Account], passed_s: float) -> None:
    """Take what was asked for since the last look, so many seconds ago, into what tenants need."""
    follow = 1.0 - exp(-passed_s / NEED_S)
    for account in accounts:
        account.need_s += follow * (account.asked_s / passed_s - account.need_s)
        account.asked_s = 0.0


def large(accounts: Sequence[Account], share_s: float) -> list[Account]:
    """Those that ask for more than their share, and for much more than the others do."""
    total, others, found = sum(account.need_s for account in accounts), max(1, len(accounts) - 1), []
    for account in accounts:
        need_s = account.need_s / STAY if account.apart else account.need_s
        if need_s > share_s and need_s > LARGE * (total - account.need_s) / others > 0.0:
            found.append(account)
    return found


def floods(large_s: float, others_s: float, nodes: int, slower: float) -> bool:
    """Whether large tenants make the others' steps longer than that, and are rightly kept apart: the fleet is full, or they
    lose nothing by it.
    """
    asked = (large_s + others_s) / nodes
    fits = large_s <= FULL * (nodes - kept(others_s, nodes, slower))
    return asked > busy_most(others_s / nodes, slower) and (fits or asked > FULL)
