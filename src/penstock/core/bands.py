"""Admission by prompt length: under overload no length is shut out for the others' sake.

Refusing just what cannot be served in time favours whatever fits into a nearly full schedule: short prompts, or those with
the longest deadlines. So requests are counted in bands of doubling prompt length, and one whose band is admitted more often
is admitted only if a typical request of the band that is admitted least would still fit behind it.
"""

from __future__ import annotations

from math import inf

HALF_LIFE_S = 30.0
TOLERANCE = 0.05
"""Admission ratios closer than this, or than a tenth, are equal."""
CHEAP = 0.6
"""A request that needs less than this share of the prefill usual for its length is cheap."""
SPARED = 0.3
"""Share of the time before a deadline that is kept for cheap requests, if all others are refused. Served, they are good
answers for little, and their prefixes are there for what follows; refused, a conversation's next turn is dear as well."""
USUAL = 0.05
"""With a smaller share of cheap requests less is kept for them."""
KNOWN = 2.0
"""A band with fewer recent requests than this has no ratio to speak of."""
BANDS = 24


class Bands:
    """Only requests that an idle fleet could serve in time are counted."""

    __slots__ = ("admitted", "aged_at", "cheap", "offered", "room", "work")

    def __init__(self) -> None:
        self.offered = [0.0] * BANDS
        self.admitted = [0.0] * BANDS
        self.room = [inf] * BANDS
        """How long a request of the band could have waited: a running mean, seconds."""
        self.cheap = 0.0
        """The share of requests that are cheap: a running mean."""
        self.work = [0.0] * BANDS
        """Prefill seconds for each prompt token of the band, less where more is cached: a running mean."""
        self.aged_at = 0.0

    def age(self, now: float) -> None:
        if now - self.aged_at > 0.1 * HALF_LIFE_S:
            keep = 0.5 ** ((now - self.aged_at) / HALF_LIFE_S)
            self.offered = [count * keep for count in self.offered]
            self.admitted = [count * keep for count in self.admitted]
            self.aged_at = now

    def note(self, tokens: int, admitted: bool, room_s: float, now: float) -> None:
        self.age(now)
        band = band_of(tokens)
        self.offered[band] += 1
        self.admitted[band] += admitted
        known = self.room[band]
        self.room[band] = room_s if known == inf else known + 0.1 * (room_s - known)

    def is_cheap(self, tokens: int, own_s: float) -> bool:
        """Whether its prefill takes much less than that of its length usually does: most of it is cached."""
        band, each_s = band_of(tokens), own_s / max(1, tokens)
        known = self.work[band] = self.work[band] + 0.02 * (each_s - self.work[band]) if self.work[band] else each_s
        cheap = each_s < CHEAP * known
        self.cheap += 0.01 * (cheap - self.cheap)
        return cheap

    def spared(self) -> float:
        """The share of the time before a deadline to keep for cheap requests: none where there are none, or nothing is refused."""
        offered = sum(self.offered)
        refused = 1.0 - sum(self.admitted) / offered if offered > KNOWN else 0.0
        return SPARED * refused * min(1.0, self.cheap / USUAL)

    def withdrawn(self, tokens: int) -> None:
        """An admitted request was not served after all."""
        band = band_of(tokens)
        self.admitted[band] = max(0.0, self.admitted[band] - 1)

    def ratio(self, band: int) -> float:
        return self.admitted[band] / self.offered[band]

    def crowds_out(self, tokens: int, wait_after_s: float) -> bool:
        """Whether admitting the request would leave a typical one of the least admitted band to wait for too long."""
        band = band_of(tokens)
        known = [other for other in range(BANDS) if self.offered[other] >= KNOWN]
        if not known or self.offered[band] < KNOWN:
            return False
        least = min(known, key=self.ratio)
        ratio = self.ratio(band)
        return self.ratio(least) < ratio - min(TOLERANCE, 0.1 * ratio) and wait_after_s > self.room[least]


def band_of(tokens: int) -> int:
    return min(BANDS - 1, tokens.bit_length())
