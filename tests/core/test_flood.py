"""Who floods, and how much is kept for the others: in an abstract fleet of eight nodes with ten tenants."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.fairness import Account
from penstock.core.flood import START_S, Flood, busy_most

NODES, LOOK_S = 8, 0.1


class Fleet:
    """Ten tenants that ask for so many node seconds a second each; `t0` for `first`."""

    def __init__(self, first: float, others: float = 0.16) -> None:
        self.accounts = [Account(f"t{number}", number) for number in range(10)]
        self.asks = [first] + [others] * 9
        self.flood = Flood()
        self.flood.others_s = 9 * others
        self.seen_s = 0.0

    def passes(self, seconds: float) -> set[str]:
        """Who is large at the end."""
        found: set[Account] = set()
        for _ in range(round(seconds / LOOK_S)):
            self.seen_s += LOOK_S
            for account, ask in zip(self.accounts, self.asks, strict=True):
                account.asked_s += ask * LOOK_S
            found = self.flood.look(self.accounts, 0.7 * NODES / 10, NODES, LOOK_S, self.seen_s)
            for account in self.accounts:
                account.apart = account in found
        return {account.name for account in found}

    def kept(self) -> int:
        return self.flood.kept(NODES)


def test_a_tenant_at_a_hundred_times_its_rate_is_told_within_a_second() -> None:
    fleet = Fleet(0.16)
    assert not fleet.passes(100.0) and not fleet.kept()
    fleet.asks[0] = 16.0
    assert fleet.passes(0.7) == {"t0"} and fleet.kept() == 4


def test_so_is_one_that_is_there_from_the_start() -> None:
    fleet = Fleet(16.0)
    assert fleet.passes(1.0) == {"t0"} and fleet.kept() == 4
    fleet.passes(60.0)
    assert fleet.kept() == 4, "it asks for more than the fleet can do"


@pytest.mark.parametrize("total", [0.5, 0.7, 0.9, 0.97])
def test_nothing_is_taken_from_a_tenant_that_is_usually_large(total: float) -> None:
    most = 0.7 * total * NODES
    fleet = Fleet(most, others=(total * NODES - most) / 9)
    for _ in range(120):
        fleet.passes(1.0)
        assert not fleet.kept()


def test_a_surge_into_what_is_free_is_in_nobody_s_way() -> None:
    fleet = Fleet(0.16)
    fleet.passes(100.0)
    fleet.asks[0] = 3.0
    fleet.passes(60.0)
    assert not fleet.kept()


def test_what_a_fleet_can_do_becomes_usual() -> None:
    fleet = Fleet(0.16)
    fleet.passes(100.0)
    fleet.asks[0] = 6.0
    fleet.passes(5.0)
    assert fleet.kept() == 4
    fleet.passes(400.0)
    assert not fleet.kept(), "the fleet serves all that is asked for"


def test_the_more_is_asked_for_beyond_what_the_fleet_can_do_the_more_is_kept() -> None:
    levels = []
    for total in (1.0, 1.1, 1.3, 1.6):
        fleet = Fleet(0.85 * total * NODES, others=0.15 * total * NODES / 9)
        fleet.passes(START_S + 60.0)
        levels.append(fleet.flood.level)
    assert levels[0] == 0.0 and levels[-1] == 1.0
    assert all(less < more for less, more in pairwise(levels))


def test_a_moment_of_overload_is_none() -> None:
    fleet = Fleet(3.0)
    fleet.passes(100.0)
    fleet.asks[0] = 5.5
    fleet.passes(100.0)
    fleet.asks = [ask * 1.3 for ask in fleet.asks]
    fleet.passes(2.0)
    assert not fleet.kept()


def test_where_need_is_not_known_long_waits_tell() -> None:
    fleet = Fleet(0.1, others=0.002)
    fleet.accounts[0].rich = True
    fleet.passes(1.0)
    assert fleet.flood.level < 0.2
    fleet.passes(60.0)
    assert fleet.flood.level > 0.9 and fleet.kept() == 1


def test_tenants_that_are_all_alike_are_not_large() -> None:
    assert not Fleet(3.0, others=3.0).passes(30.0)


@given(st.floats(0.0, 100.0), st.integers(1, 64), st.floats(0.01, 100.0), st.floats(0.0, 1.0))
def test_one_node_is_always_left_and_more_need_keeps_no_less(others_s: float, nodes: int, slower: float, level: float) -> None:
    flood = Flood(slower)
    flood.level, flood.others_s = level, others_s
    kept = flood.kept(nodes)
    assert 0 <= kept < nodes
    flood.others_s += 0.5
    assert flood.kept(nodes) >= kept


@given(st.floats(0.01, 0.9), st.integers(2, 64), st.floats(0.05, 1.0))
def test_steps_on_what_is_kept_are_longer_by_no_more_than_asked(others: float, nodes: int, slower: float) -> None:
    flood = Flood(slower)
    flood.level, flood.others_s = 1.0, others * nodes
    kept = flood.kept(nodes)
    if kept < nodes - 1:
        assert 1.0 - others * nodes / kept >= (1.0 - others) / (1.0 + slower) - 1e-9
    assert busy_most(others, slower) >= others


def test_a_large_tenant_that_asks_for_little_more_than_all_others_floods_nobody_however_long_it_waits() -> None:
    fleet = Fleet(0.6 * 1.5 * NODES, others=0.4 * 1.5 * NODES / 9)
    fleet.accounts[0].rich = True
    fleet.passes(START_S + 120.0)
    assert fleet.flood.level == 0.0 and fleet.kept() == 0
