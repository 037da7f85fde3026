"""Promised returns: spread at the rate that is served, recognised when they come, given up when they do not."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.returns import BOOKS, EARLY_S, LATE_S, MOST_S, SHARE, SHOW_LEAST, Book, Returns

KEY = ("tenant", "class")


def told(count: int, rate: float, least_s: float = 1.0) -> tuple[Returns, list[float]]:
    returns, rng = Returns(), random.Random(1)
    return returns, [returns.refuse(KEY, least_s, rate, 0.0, rng) for _ in range(count)]


def test_crowd_comes_back_at_the_rate_at_which_its_class_is_served() -> None:
    returns, waits = told(2_000, rate=100.0)
    seconds = [sum(second <= wait < second + 1 for wait in waits) for second in range(1, int(max(waits)))]
    show = returns.books[KEY].show
    assert all(count == pytest.approx(SHARE * 100.0 / show, rel=0.05) for count in seconds)


def test_nothing_is_promised_later_than_clients_wait() -> None:
    returns, waits = told(5_000, rate=10.0)
    assert max(waits) <= MOST_S
    beyond = waits[int(MOST_S * 10 * SHARE) + 1 :]
    assert min(beyond) >= MOST_S / 2 and max(beyond) - min(beyond) > MOST_S / 3
    assert returns.books[KEY].due < 2_000


def test_return_on_time_takes_the_promise_once() -> None:
    returns, (wait,) = told(1, rate=10.0)
    assert not returns.take(KEY, wait - EARLY_S - 0.5)
    assert returns.take(KEY, wait)
    assert not returns.take(KEY, wait)


def test_another_tenant_cannot_take_it() -> None:
    returns, (wait,) = told(1, rate=10.0)
    assert not returns.take(("other", "class"), wait)
    assert returns.take(KEY, wait)


def test_promise_lapses_and_what_callers_do_is_learned() -> None:
    returns, waits = told(200, rate=10.0, least_s=1.0)
    assert returns.expected(0.0) == 0.0, "nothing is known yet of who comes back"
    before = returns.books[KEY].show
    assert not returns.take(KEY, max(waits) + LATE_S + 1.0)
    assert returns.books[KEY].due == 0 and returns.books[KEY].show < before / 10
    assert returns.expected(max(waits) + LATE_S + 1.0) == 0.0


def test_room_is_promised_several_times_to_callers_who_do_not_come() -> None:
    returns, rng = Returns(), random.Random(1)
    returns.refuse(KEY, 1.0, 10.0, 0.0, rng)
    returns.books[KEY].show = 0.0
    waits = [returns.refuse(KEY, 1.0, 10.0, 0.0, rng) for _ in range(400)]
    assert max(waits) == pytest.approx(400 * SHOW_LEAST / (SHARE * 10.0), rel=0.1)


def test_books_are_bounded_and_empty_ones_make_room() -> None:
    returns, rng = Returns(), random.Random(1)
    for number in range(BOOKS + 100):
        returns.refuse((str(number), "class"), 1.0, 10.0, 0.0, rng)
    assert len(returns.books) == BOOKS
    assert 1.0 <= returns.refuse(("one more", "class"), 1.0, 10.0, 0.0, rng) <= 2.0
    returns.refuse(("one more", "class"), 1.0, 10.0, 100.0, rng)
    assert list(returns.books) == [("one more", "class")]


@given(st.lists(st.tuples(st.sampled_from("ptl"), st.floats(0, 5)), max_size=200))
def test_a_book_never_owes_more_than_it_promised(steps: list[tuple[str, float]]) -> None:
    book, now, promised, taken = Book(), 0.0, 0, 0
    for step, seconds in steps:
        now += seconds
        if step == "p":
            book.promise(now + seconds)
            promised += 1
        elif step == "t":
            taken += book.take(now)
        else:
            book.lapse(now)
        assert book.due == sum(book.bins.values()) >= 0
        assert taken + book.due <= promised and 0.0 <= book.show <= 1.0
    book.lapse(now + 100)
    assert book.due == 0 and not book.bins


def test_room_is_kept_once_callers_are_known_to_come_back() -> None:
    returns, waits = told(200, rate=10.0)
    for wait in waits[:150]:
        assert returns.take(KEY, wait)
    assert 0.7 < returns.expected(waits[150]) < 1.0


def test_no_room_is_kept_for_callers_who_do_not_say_that_they_came_before() -> None:
    returns = Returns()
    draw = random.Random(1)
    waits = sorted(returns.refuse(("", "c"), 1.0, 10.0, 0.0, draw) for _ in range(100))
    for wait in waits[:80]:
        returns.take(("", "c"), wait, told=False)
    assert returns.expected(waits[79]) == 0.0
