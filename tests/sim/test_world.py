"""The heap driver: what goes in comes out once, and the core sees only what the wire shows."""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.playbook import Overheard
from tests.sim.fleet import SMALL, profile, world

from penstock.core import Core
from penstock.events import Event, Failed, Finished, FirstToken, NodeLost, NodeSeen, Progress
from penstock.facts import Failure, Outcome
from penstock.sim.arrival import Arrival
from penstock.sim.faults import Fault, schedule
from penstock.sim.presets import PRESETS, preset
from penstock.sim.slo import Slo
from penstock.sim.world import World, configuration

ARRIVALS = st.lists(
    st.builds(
        Arrival,
        at_s=st.floats(0, 20),
        prompt_tokens=st.integers(1, 3_000),
        output_tokens=st.integers(1, 200),
        blocks=st.lists(st.integers(1, 4), max_size=5).map(tuple),
        stream=st.booleans(),
        model=st.sampled_from(["a", "b"]),
    ),
    max_size=25,
).map(lambda arrivals: sorted(arrivals, key=lambda arrival: arrival.at_s))
FAULTS = st.lists(
    st.builds(
        Fault,
        at_s=st.floats(0, 25),
        node=st.sampled_from(["n0", "n1"]),
        do=st.sampled_from(["kill", "restart", "slow", "mute", "unmute"]),
        factor=st.floats(0.2, 5),
        for_s=st.none() | st.floats(0.1, 10),
    ),
    max_size=5,
).map(schedule)
SLOS = st.builds(Slo, ttft_s=st.none() | st.floats(0.1, 5), tpot_s=st.none() | st.floats(0.005, 0.1))


def watched(made: World) -> list[tuple[float, Event]]:
    """Every event the core is given from now on, with its time."""
    seen: list[tuple[float, Event]] = []
    made.core = cast(Core, Overheard(made.core, lambda now, event, actions: seen.append((now, event))))
    return seen


def burst(count: int, **changes: Any) -> list[Arrival]:
    return [Arrival(**{"at_s": 0.01 * index, "prompt_tokens": 400, "output_tokens": 30, **changes}) for index in range(count)]


@settings(max_examples=80)
@given(ARRIVALS, FAULTS, SLOS, st.sampled_from(list(PRESETS)), st.integers(0, 9))
def test_each_request_ends_once_and_nothing_is_left_behind(
    arrivals: list[Arrival], faults: list[Fault], slo: Slo, name: str, seed: int
) -> None:
    made = world(arrivals, name, slo=slo, faults=faults, seed=seed)
    assert made.ended == len(arrivals) == sum(trip.outcome is not None for trip in made.trips)
    for trip in made.trips:
        assert trip.ended_at >= trip.arrival.at_s
        if trip.outcome is Outcome.COMPLETED:
            assert trip.arrival.at_s < trip.first_at <= trip.ended_at
            assert 0 <= trip.cached_tokens < trip.arrival.prompt_tokens
    for machine in made.machines:
        assert not machine.flying
        assert machine.engine.running == machine.engine.waiting == 0


@settings(max_examples=15)
@given(ARRIVALS, FAULTS, SLOS, st.sampled_from(list(PRESETS)))
def test_two_runs_with_one_seed_are_the_same(arrivals: list[Arrival], faults: list[Fault], slo: Slo, name: str) -> None:
    once, again = (world(arrivals, name, slo=slo, faults=faults, seed=4) for _ in range(2))
    assert once.trips == again.trips


def test_output_length_is_not_shown_before_the_end() -> None:
    first = World(burst(10), [SMALL], preset("penstock"), Slo())
    second = World(burst(10, output_tokens=31), [SMALL], preset("penstock"), Slo())
    events = [watched(made) for made in (first, second)]
    first.run()
    second.run()
    until = [next(index for index, (_, event) in enumerate(seen) if isinstance(event, Finished)) for seen in events]
    assert events[0][: until[0]] == events[1][: until[0]]


def test_baselines_get_no_first_tokens_and_forward_at_once() -> None:
    for name in (name for name, one in PRESETS.items() if not one.streams):
        made = World(burst(60), [SMALL] * 2, preset(name), Slo(ttft_s=0.1))
        seen = watched(made)
        made.run()
        assert not any(isinstance(event, FirstToken | Progress) for _, event in seen), name
        assert Counter(trip.outcome for trip in made.trips) == {Outcome.COMPLETED: 60}, name
        assert made.core.waiting == 0


def test_progress_is_told_each_second_while_streams_run() -> None:
    made = World([Arrival(0.0, 100, 401)], [SMALL], preset("penstock"), Slo())
    seen = watched(made)
    made.run()
    told = [(now, event) for now, event in seen if isinstance(event, Progress)]
    assert [now for now, _ in told] == [1.0, 2.0, 3.0, 4.0]
    assert told[1][1].tokens == 100
    assert told[1][1].stream_s == pytest.approx(1.0)


def test_killed_node_fails_its_requests_at_once_and_is_lost_at_the_next_probe() -> None:
    faults = [Fault(0.5, "n0", "kill"), Fault(3.5, "n0", "restart")]
    made = World(burst(8, output_tokens=300), [SMALL] * 2, preset("fifo-rr"), Slo(), faults)
    seen = watched(made)
    made.run()
    failed = [(now, event) for now, event in seen if isinstance(event, Failed)]
    assert {now for now, _ in failed} == {0.5}
    assert len(failed) == 4
    states = [(now, type(event)) for now, event in seen if isinstance(event, NodeLost | NodeSeen) and event.node == "n0"]
    assert states[:3] == [(1.0, NodeLost), (4.0, NodeSeen), (5.0, NodeSeen)]


def test_request_that_showed_no_token_is_tried_elsewhere() -> None:
    made = world([Arrival(0.0, 400, 10)], nodes=2, faults=[Fault(0.2, "n0", "kill"), Fault(0.2, "n1", "slow")])
    moved = world([Arrival(0.0, 400, 10)], nodes=2, faults=[Fault(0.2, f"n{made.trips[0].node}", "kill")])
    assert moved.trips[0].outcome is Outcome.COMPLETED
    assert moved.trips[0].first_at > 0.6


def test_request_that_showed_a_token_goes_on_elsewhere() -> None:
    alone = world([Arrival(0.0, 400, 300)], nodes=2)
    node = alone.trips[0].node
    made = World([Arrival(0.0, 400, 300)], [SMALL] * 2, preset("penstock"), Slo(), [Fault(1.9, f"n{node}", "kill")])
    seen = watched(made)
    made.run()
    [trip] = made.trips
    assert (trip.outcome, trip.node, trip.first_at) == (Outcome.COMPLETED, 1 - node, alone.trips[0].first_at)
    assert 0 < trip.emitted < 300
    # The prompt and what there was of the answer are computed again.
    assert trip.ended_at > alone.trips[0].ended_at + 0.4
    [end] = [event for _, event in seen if isinstance(event, Finished)]
    assert end.output_tokens == 300


def test_where_bytes_are_relayed_only_a_request_that_showed_a_token_fails() -> None:
    made = world([Arrival(0.0, 400, 100)], "fifo-rr", nodes=2, faults=[Fault(0.9, "n0", "kill"), Fault(0.9, "n1", "kill")])
    assert made.trips[0].outcome is Outcome.FAILED


def test_request_that_showed_a_token_fails_where_there_is_no_other_node() -> None:
    made = world([Arrival(0.0, 400, 100)], nodes=1, faults=[Fault(0.9, "n0", "kill")])
    assert made.trips[0].outcome is Outcome.FAILED
    assert made.trips[0].first_at == -1.0


def test_dead_node_refuses_connections_until_it_is_known_to_be_lost() -> None:
    faults = [Fault(0.05, "n0", "kill")]
    made = World(burst(12), [SMALL] * 2, preset("fifo-rr"), Slo(), faults)
    seen = watched(made)
    made.run()
    assert sum(isinstance(event, Failed) and event.failure is Failure.CONNECT for _, event in seen) >= 1
    assert {trip.outcome for trip in made.trips if trip.node == 1} == {Outcome.COMPLETED}


def test_without_any_node_left_requests_end_all_the_same() -> None:
    for name in PRESETS:
        made = world(burst(5), name, nodes=1, faults=[Fault(0.005, "n0", "kill")])
        assert made.ended == 5
        assert made.now < 7_300


def test_request_that_can_never_fit_fails() -> None:
    made = world([Arrival(0.0, 30_000, 10)], nodes=1)
    assert made.trips[0].outcome is Outcome.FAILED


def test_llmd_reads_metrics_as_they_were_at_most_50_ms_before_an_arrival() -> None:
    made = World([Arrival(0.07, 400, 100), Arrival(0.071, 400, 100), Arrival(0.28, 9, 9)], [SMALL], preset("llmd-default"), Slo())
    seen = watched(made)
    made.run()
    probes = [(now, event.signals.running) for now, event in seen if isinstance(event, NodeSeen)]
    assert [round(now, 6) for now, _ in probes[:2]] == [0.05, 0.25]
    assert [running for _, running in probes[:2]] == [0, 1]


def test_no_arrivals_is_no_work() -> None:
    assert world([]).now == 0.0


def test_configuration_tells_the_core_what_the_preset_knows() -> None:
    nodes = [("n0", SMALL)]
    ours = configuration(preset("penstock"), nodes, ("m",), Slo(ttft_s=2.0, ttft_per_1k_s=0.25, tpot_s=0.1))
    assert (ours.classes[0].ttft_ms, ours.classes[0].ttft_ms_per_1k, ours.classes[0].tpot_ms) == (2000.0, 250.0, 100.0)
    assert (ours.nodes[0].profile, ours.nodes[0].models) == ("small", ("m",))
    patient = configuration(preset("penstock"), nodes, ("m",), Slo())
    assert patient.classes == ()
    assert patient.knobs.queue_ttl_s == 86_400.0
    theirs = configuration(preset("llmd-default"), [("n0", profile(cache_tokens=7_000))], ("m",), Slo(ttft_s=2.0))
    assert theirs.classes == ()
    assert (theirs.nodes[0].profile, theirs.nodes[0].kv_tokens) == (None, 7_000)
    assert theirs.knobs.depth_s < inf


def test_a_world_goes_on_with_what_is_added() -> None:
    made = World(burst(5), [SMALL], preset("penstock"), Slo())
    made.run()
    before, ended = len(made.busy), max(trip.ended_at for trip in made.trips)
    made.add([Arrival(at_s=made.now + 2.0, prompt_tokens=400, output_tokens=30)])
    made.run()
    assert made.ended == 6 and made.trips[5].outcome is Outcome.COMPLETED
    assert made.trips[5].first_at > ended + 2.0
    assert len(made.busy) > before and made.busy == sorted(made.busy)


def test_a_fault_happens_once_however_often_a_world_goes_on() -> None:
    made = World(burst(3), [SMALL] * 2, preset("penstock"), Slo(), [Fault(at_s=0.0, node="n0", do="slow", factor=2.0)])
    made.run()
    made.add(burst(3, at_s=made.now + 1.0))
    made.run()
    assert [machine.slow for machine in made.machines] == [2.0, 1.0]
