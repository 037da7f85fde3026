"""Accounts of keys: reserved before, settled after."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config import Key, KeyLimit, Price
from penstock.core.account import COST, FREE, MODELS, PICO, REQUESTS, TOKENS, Account, Prices, Reserved, Shortage, Tariff, accounts

ENDS = st.sampled_from(("settle", "unknown", "release", "engine refused", "leave running"))
CALLS = st.lists(st.tuples(st.floats(0, 20), st.integers(1, 300), st.integers(0, 300), st.integers(0, 100), ENDS), max_size=80)
TARIFF = Tariff(3, 1, 7)


def take(account: Account, prompt: int = 10, most: int | None = 10, now: float = 0.0, tariff: Tariff = FREE) -> Reserved:
    held = account.reserve("m", tariff, prompt, most, now)
    assert isinstance(held, Reserved)
    return held


def refused(account: Account, prompt: int = 10, most: int | None = 10, now: float = 0.0, tariff: Tariff = FREE) -> Shortage:
    shortage = account.reserve("m", tariff, prompt, most, now)
    assert isinstance(shortage, Shortage)
    return shortage


def used(account: Account, now: float = 0.0) -> dict[str, float]:
    return {window.limit: window.used for window in account.use(now).windows}


@given(CALLS)
def test_no_limit_is_exceeded_nothing_leaks_and_everything_is_settled(calls: list[tuple[float, int, int, int, str]]) -> None:
    """Calls overlap: each ends when the next but three arrives, with no more than it reserved."""
    limits = (KeyLimit(requests=8), KeyLimit(tokens=1_000), KeyLimit(tokens=2_500, window_s=600.0), KeyLimit(cost=4_000 / PICO))
    account = Account("k", limits, concurrency=3)
    open_calls: list[tuple[Reserved, int, str]] = []
    served: list[tuple[float, int, int]] = []
    now, charged = 0.0, 0
    for gap, prompt, most, share, end in calls:
        now += gap
        held = account.reserve("m", TARIFF, prompt, most, now)
        if isinstance(held, Reserved):
            open_calls.append((held, share * most // 100, end))
        assert account.running == len(open_calls) <= 3
        while len(open_calls) > 2 or (open_calls and open_calls[0][2] == "release"):
            held, output, how = open_calls.pop(0)
            if how == "release":
                account.release(held)
            elif how == "engine refused":
                account.release(held, request=False)
                served.append((held.at, 0, 0))
            else:
                unknown = how == "unknown"
                account.settle("m", held, -1 if unknown else held.prompt, 0, -1 if unknown else output, now)
                output = held.output if unknown else output
                served.append((held.at, held.prompt + output, TARIFF.cost(held.prompt, 0, output)))
                charged += held.prompt + output
        for window_s, most_requests, most_tokens, most_cost in ((60.0, 8, 1_000, 4_000), (600.0, 10**9, 2_500, 10**9)):
            inside = [one for one in served if now - window_s < one[0] <= now]
            assert len(inside) <= most_requests
            assert sum(tokens for _, tokens, _ in inside) <= most_tokens
            assert sum(cost for _, _, cost in inside) <= most_cost
    for held, _, _ in open_calls:
        account.release(held)
    assert account.running == 0
    assert account.prompt_tokens + account.output_tokens == charged
    assert account.requests == len(served)
    assert set(used(account, now + 601).values()) <= {0}


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(0, 500)), min_size=1, max_size=20))
def test_released_calls_leave_exactly_nothing(calls: list[tuple[int, int]]) -> None:
    account = Account("k", (KeyLimit(requests=10**6), KeyLimit(tokens=10**9), KeyLimit(cost=1e6)))
    tariff = Prices({"*": Price(input_per_1m=0.27, cached_per_1m=0.07, output_per_1m=1.1)}).of("m")
    for held in [take(account, prompt, most, 0.0, tariff) for prompt, most in calls]:
        account.release(held)
    assert used(account, 1.0) == {REQUESTS: 0, TOKENS: 0, COST: 0}
    assert account.requests == account.cost == 0


def test_all_or_nothing() -> None:
    account = Account("k", (KeyLimit(requests=10), KeyLimit(tokens=100)))
    take(account, 60, 30)
    shortage = refused(account, 10, 1)
    assert (shortage.kind, shortage.used, shortage.limit, shortage.asked, shortage.wait_s) == (TOKENS, 90, 100, 11, 60.0)
    assert used(account) == {REQUESTS: 1, TOKENS: 90}
    assert account.refused == {TOKENS: 1}


def test_of_several_limits_the_longest_wait_is_told() -> None:
    account = Account("k", (KeyLimit(requests=1, window_s=1.0), KeyLimit(requests=1, window_s=60.0)))
    take(account)
    assert (refused(account, now=0.5).window_s, refused(account, now=0.5).wait_s) == (60.0, 59.5)


def test_what_is_larger_than_a_limit_never_fits() -> None:
    assert refused(Account("k", (KeyLimit(tokens=100),)), 50, 51).wait_s == inf


def test_a_guess_of_the_output_keeps_no_call_out_for_good() -> None:
    account = Account("k", (KeyLimit(tokens=100),))
    assert take(account, 50, None).output == 50
    priced = Account("k", (KeyLimit(cost=100 / PICO),))
    assert take(priced, 10, None, 0.0, Tariff(1, 1, 2)).output == 45
    assert take(Account("k", (KeyLimit(cost=1.0),)), 10, None).output == 256


def test_outputs_seen_are_what_calls_without_a_most_reserve() -> None:
    account = Account("k", (KeyLimit(tokens=10**9),))
    for _ in range(200):
        account.settle("m", take(account, 10, None), 10, 0, 20, 0.0)
    assert 15 <= take(account, 10, None).output <= 30


def test_models_are_remembered_up_to_a_bound() -> None:
    account, prices = Account("k", (KeyLimit(tokens=10**9),)), Prices({"*": Price(input_per_1m=1.0)})
    for number in range(MODELS + 1):
        held = account.reserve(f"m{number}", prices.of(f"m{number}"), 1, None, 0.0)
        assert isinstance(held, Reserved)
        account.settle(f"m{number}", held, 1, 0, 5, 0.0)
    assert len(account._high) == len(prices._known) == MODELS
    assert prices.of(f"m{MODELS}").prompt == 1_000_000


def test_settling_gives_back_what_was_not_used_and_adds_what_was_used_beyond() -> None:
    account = Account("k", (KeyLimit(tokens=1_000),))
    account.settle("m", take(account, 100, 400), 90, 0, 50, 5.0)
    assert used(account, 5.0) == {TOKENS: 140}
    account.settle("m", take(account, 100, 400, 5.0), 100, 0, 900, 30.0)
    assert used(account, 30.0) == {TOKENS: 1_140}
    assert refused(account, 1, 1, 30.0).wait_s == 35.0
    assert used(account, 65.5) == {TOKENS: 500}


def test_an_engines_refusal_counts_as_a_request_and_costs_nothing() -> None:
    account = Account("k", (KeyLimit(requests=10), KeyLimit(tokens=1_000)))
    account.release(take(account), request=False)
    assert used(account) == {REQUESTS: 1, TOKENS: 0}
    assert account.requests == 1


def test_concurrency_is_freed_by_every_kind_of_end() -> None:
    account = Account("k", concurrency=1)
    for end in ("settle", "release"):
        held = take(account)
        shortage = refused(account)
        assert (shortage.kind, shortage.used, shortage.limit) == ("concurrency", 1, 1)
        assert 0 < shortage.wait_s <= 1
        account.settle("m", held, 1, 0, 1, 0.5) if end == "settle" else account.release(held)
        assert account.running == 0


def test_cached_tokens_cost_what_cached_tokens_cost() -> None:
    prices = Prices({"deep*": Price(input_per_1m=1.0, cached_per_1m=0.1, output_per_1m=2.0), "*": Price(input_per_1m=0.5)})
    account = Account("k")
    _, tokens, cost = account.book(prices.of("deepseek"), 1_000_000, 400_000, 1_000_000)
    assert cost / PICO == pytest.approx(0.6 + 0.04 + 2.0)
    assert tokens == 2_000_000
    assert prices.of("other").cached == prices.of("other").prompt == 500_000
    assert account.book(FREE, 10, 99, 0) == (1, 10, 0)
    assert account.cached_tokens == 400_010
    assert Prices({}).of("m") == FREE == Prices({"x": Price(input_per_1m=1)}).of("m")


def test_one_account_for_each_name() -> None:
    made = accounts((Key(name="a", env="A", limits=(KeyLimit(requests=1),)), Key(name="b", env="B", concurrency=2)), ("a", "c"))
    assert {name: account.limited for name, account in made.items()} == {"a": True, "b": True, "c": False}
