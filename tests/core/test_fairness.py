"""The tenants' counters, against plain sums and in an abstract world of one server."""

from __future__ import annotations

from math import isclose

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.fairness import ACCOUNTS, AWAY_S, HALF_LIFE_S, KEPT, LEARN_S, REBASE, Account, Fairness, Ranks

COSTS = st.lists(st.floats(1.0, 1_000.0), min_size=20, max_size=200)


def backlogged(books: Fairness, ranks: Ranks, name: str) -> Account:
    account = books.account(name, 0.0)
    books.enter(account, 0.0)
    ranks.join(account)
    return account


@settings(max_examples=50)
@given(st.integers(2, 8), COSTS)
def test_tenants_that_always_wait_are_never_two_of_the_largest_requests_apart(tenants: int, costs: list[float]) -> None:
    books = Fairness()
    ranks = Ranks(books)
    given_ = {backlogged(books, ranks, f"t{number}"): 0.0 for number in range(tenants)}
    for cost in costs:
        account = ranks.first()
        assert account is not None, "somebody waits, so somebody is served"
        books.charge(account, cost, 0.0)
        given_[account] += cost
        assert max(given_.values()) - min(given_.values()) <= 2 * max(costs)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(1.0, 1_000.0), st.floats(0.0, 30.0)), min_size=20, max_size=100))
def test_decayed_counters_stay_as_close(steps: list[tuple[float, float]]) -> None:
    books = Fairness()
    ranks = Ranks(books)
    accounts = [backlogged(books, ranks, name) for name in "abc"]
    now = 0.0
    for cost, pause in steps:
        now += pause
        account = ranks.first()
        assert account is not None
        books.charge(account, cost, now)
        services = [books.service(account, now) for account in accounts]
        assert max(services) - min(services) <= 2 * max(cost for cost, _ in steps) * (1 + 1e-9)


@given(st.floats(0.0, 1e6), st.floats(0.0, 3_600.0))
def test_service_halves_each_half_life(tokens: float, passed: float) -> None:
    books = Fairness()
    account = books.account("a", 0.0)
    books.charge(account, tokens, 0.0)
    assert isclose(books.service(account, passed), tokens * 0.5 ** (passed / HALF_LIFE_S), abs_tol=1e-9)


def test_who_comes_back_from_idling_starts_level_with_the_least_served() -> None:
    books = Fairness()
    ranks = Ranks(books)
    busy = [backlogged(books, ranks, name) for name in "ab"]
    for account, tokens in zip(busy, (500.0, 900.0), strict=True):
        books.charge(account, tokens, 0.0)
    late = books.account("late", 0.0)
    books.enter(late, 0.0)
    assert late.counter == busy[0].counter
    assert ranks.first() is busy[0]


def test_who_was_served_more_is_not_forgiven_by_a_pause() -> None:
    books = Fairness()
    ranks = Ranks(books)
    other = backlogged(books, ranks, "other")
    hog = books.account("hog", 0.0)
    books.enter(hog, 0.0)
    books.charge(hog, 1_000.0, 0.0)
    books.leave(hog)
    books.enter(hog, 0.0)
    assert hog.counter == 1_000.0 and other.counter == 0.0


STEPS = st.lists(
    st.tuples(st.sampled_from("join leave charge refund rebase".split()), st.integers(0, 5), st.floats(0.0, 100.0)), max_size=150
)


@given(STEPS)
def test_ranks_agree_with_the_least_of_a_list(steps: list[tuple[str, int, float]]) -> None:
    books, now = Fairness(), 0.0
    ranks = Ranks(books)
    accounts = [books.account(f"t{number}", 0.0) for number in range(6)]
    joined: list[Account] = []
    for step, number, amount in steps:
        account = accounts[number]
        now += amount
        if step == "join":
            ranks.join(account)
            joined += [] if account in joined else [account]
        elif step == "leave":
            ranks.leave(account)
            joined = [other for other in joined if other is not account]
        elif step == "rebase":
            now += 2 * REBASE * HALF_LIFE_S
            books.charge(account, amount, now)
        else:
            books.charge(account, amount if step == "charge" else -amount, now)
        first = ranks.first()
        assert (first is None) == (not joined)
        assert first is None or first.counter == min(account.counter for account in joined)
        assert len(ranks.heap) <= 2 * len(joined) + 64 + len(steps)


def test_counters_of_ages_ago_do_not_overflow() -> None:
    books = Fairness()
    old, new = books.account("old", 0.0), books.account("new", 0.0)
    books.charge(old, 1e9, 0.0)
    for century in range(1, 50):
        books.charge(new, 100.0, century * 100 * HALF_LIFE_S)
    assert 0.0 <= books.service(old, 4_900 * HALF_LIFE_S) < 1e-9
    assert books.service(new, 4_900 * HALF_LIFE_S) == pytest.approx(100.0)


def test_idle_tenants_are_forgotten_once_their_service_has_decayed() -> None:
    books = Fairness()
    stays = books.account("stays", 0.0)
    books.enter(stays, 0.0)
    for number in range(KEPT * 3):
        books.charge(books.account(f"t{number}", float(number)), 50.0, float(number))
    assert len(books.accounts) <= KEPT + 1
    assert books.account("stays", 1e5) is stays


def test_accounts_are_capped_even_when_all_are_fresh() -> None:
    books = Fairness()
    for number in range(ACCOUNTS + 10_000):
        books.charge(books.account(f"t{number}", 0.0), 50.0, 0.0)
    assert len(books.accounts) <= ACCOUNTS


def crowd(hog_waits: bool, share_s: float = 10.0) -> tuple[Fairness, Account]:
    """Four tenants on eight nodes, one of which took `share_s` node seconds of the last hundred, the others half one each."""
    books = Fairness()
    now = LEARN_S + 80.0
    for name, held_s in (("hog", share_s), ("a", 0.5), ("b", 0.5), ("c", 0.5)):
        account = books.account(name, 0.0)
        books.enter(account, now)
        account.held_s = held_s * 87.0 * books.scale(now)
        account.running = 1
    hog = books.account("hog", now)
    if hog_waits:
        books.enter(hog, now)
    for step in range(20):
        books.survey(8, now + step)
    return books, hog


def test_a_tenant_that_waits_for_more_than_its_share_is_told_apart_from_the_others() -> None:
    books, hog = crowd(hog_waits=True)
    assert hog.rich and not books.accounts["a"].rich
    assert books.others_s == pytest.approx(1.5, rel=0.3)


def test_a_large_tenant_that_gets_all_it_asks_for_is_not() -> None:
    assert not crowd(hog_waits=False)[1].rich


def test_a_tenant_inside_its_share_is_not_even_when_it_waits() -> None:
    assert not crowd(hog_waits=True, share_s=1.0)[1].rich


def test_nothing_is_kept_for_tenants_that_went_away() -> None:
    books, _ = crowd(hog_waits=True)
    for name in "abc":
        books.leave(books.accounts[name])
    books.survey(8, books.surveyed_at + AWAY_S + 10.0)
    assert books.others_s == 0.0
