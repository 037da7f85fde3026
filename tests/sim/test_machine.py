"""A node's own clock."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.sim.fleet import SMALL

from penstock.engine.sequence import Sequence
from penstock.facts import Signals
from penstock.sim.machine import CONTINUES, Machine


def finish(machine: Machine) -> list[tuple[str, float]]:
    """Everything that comes out, with the world's times in whole microseconds."""
    out: list[tuple[str, float]] = []
    while (at := machine.deadline()) < inf:
        out += [(type(outcome).__name__, round(at, 6)) for outcome in machine.advance(at)]
    return out


def started(at: float = 0.0, output: int = 11) -> Machine:
    machine = Machine(0, "n0", SMALL)
    machine.submit(Sequence(1, 100, output), at)
    return machine


def test_at_its_own_pace_it_is_the_engine() -> None:
    assert finish(started(5.0)) == [("Started", 5.11), ("Ended", 5.21)]


def test_slowed_in_the_middle_the_rest_takes_as_many_times_as_long() -> None:
    machine = started()
    machine.advance(0.11)
    machine.advance(0.16)
    machine.pace(3.0, 0.16)
    assert finish(machine) == [("Ended", 0.31)]
    assert machine.busy_s(10.0) == pytest.approx(0.16 + 3 * 0.05)
    assert 0.01 < machine.itl().mean() < 0.0301


def test_decoding_is_told_in_the_worlds_seconds() -> None:
    machine = started()
    machine.pace(2.0, 0.0)
    machine.advance(machine.deadline())
    for now, expected in ((0.32, (5, 0.1)), (0.34, (1, 0.02))):
        tokens, stream_s = machine.decoding(now)
        assert (tokens, round(stream_s, 6)) == expected


@given(st.lists(st.tuples(st.floats(0.001, 0.3), st.floats(0.1, 7.0)), max_size=6))
def test_no_change_of_pace_loses_or_repeats_an_outcome(changes: list[tuple[float, float]]) -> None:
    machine, now = started(), 0.0
    seen = []
    for after, factor in changes:
        until = now + after
        while (at := machine.deadline()) <= until:
            seen += [(type(outcome).__name__, at) for outcome in machine.advance(at)]
        now = until
        machine.pace(factor, now)
    seen += finish(machine)
    assert [kind for kind, _ in seen] == ["Started", "Ended"]
    assert [at for _, at in seen] == sorted(at for _, at in seen)


def test_killed_it_forgets_its_requests_and_keeps_its_counters() -> None:
    machine = started()
    machine.advance(0.11)
    assert machine.kill(0.15) == {1: 5}
    assert not machine.alive
    assert machine.deadline() == inf
    machine.restart(1.0)
    machine.submit(Sequence(2, 100, 1), 2.0)
    assert finish(machine) == [("Started", 2.11), ("Ended", 2.11)]
    assert machine.busy_s(3.0) == pytest.approx(0.15 + 0.11)
    assert machine.flying == {2: None}


def test_cancelled_request_leaves_the_engine() -> None:
    machine = started()
    machine.cancel(1, 0.05)
    machine.cancel(1, 0.06)
    assert finish(machine) == []
    assert machine.engine.running == 0


def test_mute_it_reports_nothing() -> None:
    machine = started()
    assert machine.signals(0.05) == Signals(running=1, waiting=0, kv_usage=112 / 20_000, continues=CONTINUES)
    machine.mute = True
    assert machine.signals(0.05) == Signals(continues=CONTINUES)
