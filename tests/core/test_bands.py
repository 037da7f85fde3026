"""Prompt lengths admitted alike."""

from __future__ import annotations

from penstock.core.bands import HALF_LIFE_S, Bands, band_of


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
