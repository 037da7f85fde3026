"""Rungs, calls back and second tries in the simulated world."""

from __future__ import annotations

from collections import Counter
from typing import cast

import msgspec
from tests.playbook import Overheard
from tests.sim.fleet import SMALL, profile, world

from penstock.config import Class, Range, When
from penstock.core import Core
from penstock.events import Action, ConfigReplaced, Hedge, Recall
from penstock.facts import Outcome
from penstock.sim.arrival import Arrival
from penstock.sim.faults import Fault
from penstock.sim.presets import preset
from penstock.sim.report import summary, ttft
from penstock.sim.slo import Slo
from penstock.sim.world import World


def actions_of(made: World) -> list[Action]:
    """Every action that the core takes from now on."""
    seen: list[Action] = []
    made.core = cast(Core, Overheard(made.core, lambda now, event, actions: seen.extend(actions)))
    return seen


def test_what_cannot_be_served_in_time_is_given_a_ticket() -> None:
    slo = Slo(ttft_s=1.0)
    made = world([Arrival(0.0, 600, 20) for _ in range(30)], "penstock-tickets", nodes=1, slo=slo)
    outcomes = Counter(trip.outcome for trip in made.trips)
    assert set(outcomes) == {Outcome.COMPLETED, Outcome.DIVERTED}
    assert summary("x", made, slo)["diverted"] == outcomes[Outcome.DIVERTED] > 0
    assert all(machine.engine.running == machine.engine.waiting == 0 for machine in made.machines)


def test_a_node_that_has_become_slow_is_overtaken_by_a_second_try() -> None:
    slo = Slo(ttft_s=1.0)
    arrivals = [Arrival(0.5 * number, 100, 20) for number in range(60)]
    made = World(arrivals, [SMALL] * 2, preset("penstock"), slo, [Fault(20.01, "n0", "slow", factor=100.0)])
    seen = actions_of(made)
    made.run()
    hedges = [action for action in seen if isinstance(action, Hedge)]
    assert 1 <= len(hedges) <= 0.05 * len(arrivals) + 1
    assert {trip.outcome for trip in made.trips} <= {Outcome.COMPLETED, Outcome.REFUSED_DEADLINE, Outcome.EXPIRED}
    for action in hedges:
        assert ttft(made.trips[action.id]) < 1.5
    assert all(not machine.flying for machine in made.machines)


def test_long_prompts_make_way_for_urgent_ones() -> None:
    def good(preempt: int) -> tuple[float, int]:
        arrivals = [Arrival(0.5 * number, 2_000 if number % 3 else 100, 10) for number in range(150)]
        made = World(arrivals, [profile(chunk_tokens=64)] * 2, preset("penstock"), Slo(ttft_s=1.0))
        rules = (Class(name="high", priority=5, ttft_ms=400, when=When(prompt_tokens=Range(le=100))), Class(name="low", priority=1))
        knobs = msgspec.structs.replace(made.core.knobs, preempt=preempt)
        made.core.handle(ConfigReplaced(msgspec.structs.replace(made.core.config, classes=rules)), 0.0)
        made.core.knobs = made.core.admission.knobs = knobs
        seen = actions_of(made)
        made.run()
        high = [trip for trip in made.trips if trip.arrival.prompt_tokens == 100]
        in_time = sum(trip.outcome is Outcome.COMPLETED and ttft(trip) <= 0.4 for trip in high)
        return in_time / len(high), sum(isinstance(action, Recall) for action in seen)

    without, with_it = good(0), good(1)
    assert without[1] == 0 < with_it[1]
    assert with_it[0] > 0.9 > 0.7 > without[0]
