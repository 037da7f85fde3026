"""Who has to leave whom room when not all can be admitted."""

from __future__ import annotations

import pytest

from penstock.core.claims import KEPT_HALF_LIFE_S, KEPT_MOST, OWN, RECENT_S, ROOM, Claims


def claims(now: float = 0.0) -> Claims:
    """`hog` was given much, `middle` the mean, `small` little; `small` was refused while it could have waited 2 s."""
    made = Claims()
    for tenant, tokens in (("hog", 9_000.0), ("middle", 2_000.0), ("small", 100.0)):
        made.served(tenant, tokens, now)
    made.refuse("small", 2.0, now + 2.0)
    return made


def test_who_was_given_most_leaves_room_for_the_refused_who_was_given_less() -> None:
    assert claims().ahead_of("hog", 3.0) == pytest.approx(ROOM * 2.0)


def test_who_was_given_less_than_the_mean_has_to_leave_none() -> None:
    assert claims().ahead_of("middle", 3.0) is None and claims().ahead_of("small", 3.0) is None


def test_refusals_of_long_ago_claim_nothing() -> None:
    assert claims().ahead_of("hog", 3.0 + RECENT_S) is None


def test_the_most_pressing_of_the_refused_count() -> None:
    made = claims()
    for _ in range(20):
        made.refuse("small", 0.5, 3.0)
        made.refuse("small", 5.0, 3.0)
    room_s = made.ahead_of("hog", 3.0)
    assert room_s is not None and room_s < ROOM * 1.5


def test_tenants_not_seen_for_long_are_taken_to_have_had_the_mean() -> None:
    made = claims()
    later = 10 * RECENT_S
    for tenant in ("hog", "middle"):
        made.served(tenant, 5_000.0, later)
    made.served("small", 1.0, later + 2.0)
    made.refuse("hog", 2.0, later + 2.0)
    assert made.claim("small", later).account.counter > made.books.scale(later) * 1_000


def test_prompt_lengths_are_told_apart_by_tenant_up_to_a_bound() -> None:
    made = Claims()
    bands = [made.claim(f"t{number}", 0.0).bands for number in range(2 * OWN)]
    assert bands[0] is not bands[1] and bands[-1] is bands[-2] is made.shared


def test_claims_of_forgotten_tenants_are_dropped() -> None:
    made = Claims()
    for number in range(50_000):
        made.claim(f"t{number}", float(number))
    assert len(made.known) < 20_000


def test_the_most_served_leave_memory_when_modest_tenants_lose_requests_for_want_of_it() -> None:
    made = claims()
    assert made.leaves("hog", 3.0) == 0.0
    for _ in range(10):
        made.short("small", True, 3.0)
    assert 0.0 < made.leaves("small", 3.0) < made.leaves("middle", 3.0) < made.leaves("hog", 3.0) == made.kept
    assert made.leaves("unknown", 3.0) == 0.0


def test_memory_left_is_bounded_and_given_back_when_few_are_lost() -> None:
    made = claims()
    for _ in range(1_000):
        made.short("small", True, 3.0)
    assert made.kept == KEPT_MOST
    for _ in range(5_000):
        made.short("small", False, 3.0)
    assert made.kept == 0.0


def test_what_the_most_served_lose_keeps_no_memory_from_them() -> None:
    made = claims()
    for _ in range(100):
        made.short("hog", True, 3.0)
    assert made.kept == 0.0


def test_memory_left_fades_while_no_modest_tenant_comes() -> None:
    made = claims()
    for _ in range(1_000):
        made.short("small", True, 3.0)
    assert made.leaves("hog", 3.0 + KEPT_HALF_LIFE_S) == pytest.approx(0.5 * KEPT_MOST, rel=0.1)


def test_nobody_ranks_where_nothing_was_served() -> None:
    assert Claims().rank("a", 1.0) == 1.0


def test_what_was_predicted_and_not_used_is_given_back() -> None:
    made = Claims()
    for tenant in ("short", "long"):
        made.served(tenant, 10_000.0, 0.0)
    made.correct("short", -9_000.0, 0.0)
    assert made.rank("short", 2.0) == pytest.approx(0.1) and made.rank("long", 2.0) == pytest.approx(1.0)
    made.correct("nobody", 500.0, 1.0)
    assert "nobody" not in made.books.accounts


def test_who_wants_more_and_was_given_less_than_others_that_do_leaves_no_room_though_it_is_above_the_mean_of_all() -> None:
    made = Claims()
    for tenant, tokens in (("hog", 9_000.0), ("middle", 3_000.0), *((f"small{number}", 10.0) for number in range(20))):
        made.served(tenant, tokens, 0.0)
    for tenant in ("hog", "middle", "small0"):
        made.refuse(tenant, 2.0, 2.0)
    assert made.ahead_of("middle", 4.0) is None and made.ahead_of("hog", 4.0) is not None
