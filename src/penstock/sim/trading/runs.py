"""The reference case's runs: one load, before and after, on the same nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from penstock.config import Config
from penstock.sim.presets import PRESETS, Preset
from penstock.sim.report import summary
from penstock.sim.setting import Setting
from penstock.sim.slo import Slo
from penstock.sim.trading import desks, place
from penstock.sim.trading.window import window
from penstock.sim.world import World

Watch = Callable[[str, int, int], None]
"""Told what runs, how many of its requests have ended, and how many there are."""


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How the exchange is served: by which preset, configuration and entry process."""

    name: str
    about: str
    preset: Preset
    setting: Setting


def before(config: Config, scale: float) -> Way:
    return Way(
        name="before",
        about="one entry process for 2,000 calls, first come, first served, nodes in turn",
        preset=PRESETS["fifo-rr"],
        setting=Setting(config=config, classes=config.classes, entry=place.old_entry(scale)),
    )


def after(config: Config, scale: float) -> Way:
    return Way(
        name="after",
        about="Penstock",
        preset=PRESETS["penstock"],
        setting=Setting(config=config, classes=config.classes, entry=place.new_entry(scale)),
    )


def play(
    run: place.Run,
    ways: Sequence[Way],
    scale: float,
    seed: int,
    watch: Watch | None = None,
    calm: tuple[float, float] | None = None,
) -> list[dict[str, Any]]:
    """One result a way, over the same arrivals, `calm` is a second window to look into."""
    arrivals = desks.arrivals(run.rate, run.duration_s, seed, scale)
    results = []
    for way in ways:
        world = World(arrivals, place.fleet(run.nodes, scale), way.preset, Slo(), seed=seed, setting=way.setting)
        world.run(None if watch is None else _named(watch, f"{run.name}, {way.name}", len(arrivals)))
        result: dict[str, Any] = {"run": run.name, "way": way.name, "about": way.about, "nodes": place.counts(run.nodes, scale)}
        if calm is not None:
            result["calm"] = window(world, *calm, scale)
        result["window"] = window(world, run.start_s, run.end_s, scale)
        result["whole"] = summary(way.name, world, Slo())
        results.append(result)
    return results


def _named(watch: Watch, name: str, whole: int) -> Callable[[int], None]:
    return lambda ended: watch(name, ended, whole)
