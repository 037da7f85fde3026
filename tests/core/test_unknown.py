"""The core before plain servers of which it knows nothing: overload, a load that fits, loss of capacity, waits told."""

from __future__ import annotations

from collections import Counter
from statistics import median

import msgspec
import pytest
from benchmarks.plain import KINDS, Kind, ability
from tests.core.plain_world import World

from penstock.facts import Outcome

FLEETS: dict[str, list[Kind]] = {
    "slots": [KINDS["fifo"]] * 4,
    "sharing": [KINDS["sharing"]] * 4,
    "batching": [KINDS["batching"]] * 4,
    "busy, one slow": [KINDS["busy"]] * 3 + [msgspec.structs.replace(KINDS["busy"], pace=1 / 3)],
    "two slots each": [Kind(slots=2, seconds=0.3)] * 6,
    "many slots": [Kind(slots=48, seconds=0.8)] * 2,
}


def capacity(kinds: list[Kind]) -> float:
    return sum(ability(kind) for kind in kinds)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", FLEETS)
def test_overload_is_served_at_what_the_servers_can_do(name: str, stream: bool) -> None:
    kinds = FLEETS[name]
    world, can = World(kinds, stream=stream), capacity(FLEETS[name])
    world.poisson(3 * can, 0.0, 50.0)
    world.run(60.0)
    assert world.good(30.0, 50.0) >= 0.8 * can
    assert world.good(0.0, 30.0) >= 0.7 * can


@pytest.mark.parametrize("name", FLEETS)
def test_load_that_fits_is_not_refused(name: str) -> None:
    kinds = FLEETS[name]
    world = World(kinds)
    world.poisson(0.85 * capacity(kinds), 0.0, 40.0)
    world.run(60.0)
    ended = [fate.outcome for fate in world.fates.values()]
    assert sum(outcome is not Outcome.COMPLETED for outcome in ended) <= 0.01 * len(ended)


def test_loss_of_capacity_is_followed_in_seconds() -> None:
    kinds = FLEETS["slots"]
    can = capacity(kinds)
    world = World(kinds)
    world.poisson(3 * can, 0.0, 70.0)
    world.capacity(20.0, (0, 1, 2, 3), 0.5)
    world.capacity(45.0, (0, 1, 2, 3), 1.0)
    world.run(80.0)
    assert world.good(28.0, 45.0) >= 0.75 * can / 2
    assert world.good(55.0, 70.0) >= 0.75 * can


def test_waits_told_are_waits_had() -> None:
    kinds = FLEETS["slots"]
    world = World(kinds, total_ms=None)
    world.poisson(1.3 * capacity(kinds), 0.0, 60.0)
    told: dict[int, tuple[float, float]] = {}
    for second in range(10, 60):
        world.run(float(second))
        for flight in list(world.core.lanes["m"].queue.flights())[::5]:
            place = world.core.place(flight.request.id, world.now)
            assert place is not None
            told.setdefault(flight.request.id, (world.now, place[1]))
    world.run(100.0)
    errors = []
    for id, (at, eta_s) in told.items():
        waited = world.sent.get(id, at) - at
        if waited > 1.0:
            errors.append(abs(eta_s - waited) / waited)
    assert len(errors) > 100 and median(errors) < 0.2


@pytest.mark.parametrize("load", [0.3, 1.5])
def test_refused_crowd_is_spread_and_let_in_when_it_returns(load: float) -> None:
    kinds = [Kind(slots=16, seconds=0.2)] * 2
    world, can = World(kinds), capacity([Kind(slots=16, seconds=0.2)] * 2)
    world.retries = 2
    world.poisson(load * can, 0.0, 60.0)
    for count in range(2_000):
        world.ask(15.0 + count / 2_000)
    world.run(90.0)
    returned = [fate for fate in world.fates.values() if fate.retry]
    assert len(returned) > 1_000
    assert sum(fate.outcome is Outcome.COMPLETED for fate in returned) >= 0.9 * len(returned)
    seconds = Counter(int(fate.at) for fate in returned)
    assert max(seconds.values()) <= 3 * len(returned) / (max(seconds) - min(seconds) + 1)


def test_room_is_not_kept_for_callers_who_never_return() -> None:
    kinds = FLEETS["slots"]
    world = World(kinds)
    world.poisson(3 * capacity(kinds), 0.0, 40.0)
    world.run(60.0)
    assert world.core.lanes["m"].returns.every.show < 0.1
