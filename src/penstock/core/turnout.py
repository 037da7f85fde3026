"""How fast what waits of one tenant at one priority goes, measured while some of it waits.

Turns, floors, what comes above it and how much of the fleet it may use are all in that rate: nothing has to be known of them. Who
waits behind so many of its own waits as long as they take.
"""

from __future__ import annotations

from math import log

HALF_LIFE_S = 25.0
MEAN_S = HALF_LIFE_S / log(2.0)
"""How long a time all that is remembered of it adds up to."""
AGE_S = 0.2
LEAST, LEAST_S = 4.0, 0.5
"""Departures, and seconds in which something waited, that make a rate."""
GROUPS = 1_024

Key = tuple[int, str]
"""Priority and tenant."""


class Turnout:
    __slots__ = ("at", "left", "since", "span_s", "waiting")

    def __init__(self, now: float) -> None:
        self.left = self.span_s = 0.0
        self.waiting = 0
        self.at = self.since = now

    def age(self, now: float) -> None:
        keep = 0.5 ** ((now - self.at) / HALF_LIFE_S)
        self.span_s *= keep
        if self.waiting:
            self.span_s += MEAN_S * (1.0 - 0.5 ** ((now - self.since) / HALF_LIFE_S))
        self.since = self.at = now
        self.left *= keep

    def rate(self, now: float) -> float:
        """Departures a second while something waits; 0 while unknown. That none has gone of late says something too."""
        keep = 0.5 ** ((now - self.at) / HALF_LIFE_S)
        span_s = self.span_s * keep
        if self.waiting:
            span_s += MEAN_S * (1.0 - 0.5 ** ((now - self.since) / HALF_LIFE_S))
        return self.left * keep / span_s if self.left >= LEAST and span_s > LEAST_S else 0.0


class Turnouts:
    """Those of one model's queue; beyond `GROUPS` further ones are not told apart."""

    __slots__ = ("groups",)

    def __init__(self) -> None:
        self.groups: dict[Key, Turnout] = {}

    def waits(self, key: Key, now: float) -> None:
        group = self.groups.get(key)
        if group is None:
            if len(self.groups) >= GROUPS:
                self.groups = {key: group for key, group in self.groups.items() if group.waiting}
                if len(self.groups) >= GROUPS:
                    return
            group = self.groups[key] = Turnout(now)
        if not group.waiting:
            group.since = now
        group.waiting += 1

    def goes(self, key: Key, now: float) -> None:
        """One that waits goes to a node, or its time is over; `drop` follows."""
        group = self.groups.get(key)
        if group is not None and group.waiting:
            if now - group.at > AGE_S or group.waiting == 1:
                group.age(now)
            group.left += 1

    def drop(self, key: Key) -> None:
        """One waits no longer, for whatever reason."""
        group = self.groups.get(key)
        if group is not None and group.waiting:
            group.waiting -= 1

    def wait_s(self, key: Key, place: float, now: float) -> float | None:
        """Seconds until the one at this place of its group has gone; None while unknown."""
        group = self.groups.get(key)
        rate = group.rate(now) if group is not None else 0.0
        return place / rate if rate else None
