"""Prompt lengths admitted alike."""

from __future__ import annotations

from penstock.core.bands import HALF_LIFE_S, SPARED, Bands, band_of


def seen(short: tuple[int, int], long: tuple[int, int], room_s: float = 3.0) -> Bands:
    """(offered, admitted) of short and long prompts."""
    bands = Bands()
    for tokens, (offered, admitted) in ((100, short), (50_000, long)):
        for count in range(offered):
            bands.note(tokens, count < admitted, room_s, 0.0)
    return bands


def test_well_served_length_yields_when_it_would_fill_the_room_of_one_served_less() -> None:
    bands = seen(short=(10, 10), long=(10, 5))
    assert bands.crowds_out(100, wait_after_s=3.1)
    assert not bands.crowds_out(100, wait_after_s=2.9)


def test_length_served_least_never_yields() -> None:
    assert not seen(short=(10, 10), long=(10, 5)).crowds_out(50_000, wait_after_s=99.0)


def test_lengths_served_alike_do_not_yield_to_each_other() -> None:
    assert not seen(short=(10, 8), long=(10, 8)).crowds_out(100, wait_after_s=99.0)


def test_nothing_yields_while_little_is_known() -> None:
    assert not Bands().crowds_out(100, 99.0)
    assert not seen(short=(1, 1), long=(10, 0)).crowds_out(100, 99.0)


def test_request_that_expired_counts_as_not_served() -> None:
    bands = seen(short=(10, 10), long=(10, 10))
    for _ in range(5):
        bands.withdrawn(50_000)
    assert bands.crowds_out(100, 99.0)


def test_counts_fade() -> None:
    bands = seen(short=(10, 10), long=(10, 0))
    for count in range(100):
        bands.note(50_000, True, 3.0, 5 * HALF_LIFE_S + count / 100)
    bands.note(100, True, 3.0, 5 * HALF_LIFE_S)
    assert not bands.crowds_out(100, 99.0)


def test_every_length_has_a_band() -> None:
    assert band_of(0) == 0 and band_of(10**12) == 23 and band_of(4_096) == band_of(8_191) == 13


def test_request_of_which_most_is_cached_is_cheap_beside_others_of_its_length() -> None:
    bands = Bands()
    assert not bands.is_cheap(3_000, 1.0)
    assert not bands.is_cheap(3_900, 1.3) and not bands.is_cheap(2_100, 0.7) and bands.is_cheap(3_000, 0.2)
    assert not bands.is_cheap(100, 0.01), "of another length"


def test_time_is_kept_for_cheap_requests_as_far_as_there_are_any_and_others_are_refused() -> None:
    bands = seen(short=(10, 2), long=(10, 2))
    assert bands.spared() == 0.0, "none is cheap"
    for _ in range(100):
        bands.is_cheap(3_000, 1.0)
        bands.is_cheap(3_000, 0.1)
    assert 0.5 * SPARED < bands.spared() <= 0.8 * SPARED
    assert seen(short=(10, 10), long=(10, 10)).spared() == 0.0


def test_lengths_that_are_seldom_admitted_are_compared_by_proportion() -> None:
    bands = seen(short=(100, 14), long=(100, 10))
    assert bands.crowds_out(100, 99.0), "0.14 and 0.10 are not alike"
