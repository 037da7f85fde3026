"""What a world has beside arrivals, nodes and a preset: the gateway's configuration, its entry process, its callers' patience."""

from __future__ import annotations

from math import inf

import msgspec

from penstock.config import Class, Config
from penstock.sim.entry import Entry


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    config: Config | None = None
    """Classes, policy, knobs, aliases and keys of a gateway that is configured; None: the preset's own, and the objective its one class."""
    classes: tuple[Class, ...] = ()
    """By which answers are judged and reported, whoever scheduled them."""
    entry: Entry = Entry()
    patience_s: float = inf
    """A caller who has no whole answer after this long hangs up."""


PLAIN = Setting()
