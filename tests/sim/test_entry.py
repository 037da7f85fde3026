"""The entry process: one call after the other, and so many at once; and callers who hang up."""

from __future__ import annotations

from tests.sim.fleet import ANY, world

from penstock.config import Class, Config, Key, When
from penstock.facts import Outcome
from penstock.sim.arrival import Arrival
from penstock.sim.entry import Entry, Turn
from penstock.sim.report import summary
from penstock.sim.setting import Setting

RULES = (
    Class(name="big", when=When(metadata={"task": "trade"}), priority=5, total_ms=200.0),
    Class(name="rest", priority=1, total_ms=5_000.0),
)


def calls(count: int, every_s: float = 0.0, **facts: object) -> list[Arrival]:
    return [Arrival(index * every_s, 100, 5, **facts) for index in range(count)]  # type: ignore[arg-type]


def test_calls_are_taken_one_after_the_other() -> None:
    turn = Turn(Entry(cost_s=1.0))
    assert [turn.take(at) for at in (0.0, 0.5, 5.0, 5.0)] == [1.0, 2.0, 6.0, 7.0]
    free = Turn(Entry())
    assert [free.take(at) for at in (0.0, 0.5)] == [0.0, 0.5]


def test_a_call_waits_for_the_entry_process() -> None:
    made = world(calls(3), "fifo-rr", setting=Setting(entry=Entry(cost_s=0.5)))
    assert [trip.first_at > at for trip, at in zip(made.trips, (0.5, 1.0, 1.5), strict=True)] == [True] * 3


def test_one_call_too_many_is_told_busy_and_room_comes_back() -> None:
    made = world([*calls(4), Arrival(10.0, 100, 5)], "fifo-rr", setting=Setting(entry=Entry(most=2)))
    outcomes = [trip.outcome for trip in made.trips]
    assert outcomes == [Outcome.COMPLETED] * 2 + [Outcome.REFUSED_FULL] * 2 + [Outcome.COMPLETED]


def test_callers_hang_up_and_what_they_asked_for_is_cancelled() -> None:
    arrivals = [Arrival(0.0, 5_000, 5), *calls(3), Arrival(20.0, 100, 5)]
    made = world(arrivals, "fifo-rr", nodes=1, setting=Setting(patience_s=1.0))
    assert [trip.outcome for trip in made.trips[:2]] == [Outcome.CANCELLED] * 2
    assert made.trips[0].ended_at == 1.0
    assert made.trips[-1].outcome is Outcome.COMPLETED
    assert not made.core.flights and not any(machine.flying for machine in made.machines)


def test_a_configuration_gives_classes_aliases_and_caps() -> None:
    config = Config(classes=RULES, aliases={"asked": "served"}, keys=(Key(name="low", env="X", max_priority=2),))
    arrivals = [Arrival(0.0, 100, 5, (), tenant, "", "asked", 0, True, {"task": "trade"}) for tenant in ("low", "other")]
    made = world(arrivals, setting=Setting(config=config, classes=RULES))
    assert [made.request(id).max_priority for id in (0, 1)] == [2, 5]
    assert made.request(0).model == "served"
    assert [trip.outcome for trip in made.trips] == [Outcome.COMPLETED] * 2


def test_results_are_told_by_class_whoever_scheduled() -> None:
    arrivals = [*calls(3, metadata={"task": "trade"}), *calls(2, metadata={"task": "other"})]
    arrivals.sort(key=lambda arrival: arrival.at_s)
    for preset in ("penstock", "fifo-rr"):
        rows = summary("x", world(arrivals, preset, setting=Setting(config=Config(classes=RULES), classes=RULES)), ANY)["by_class"]
        assert [(row["class"], row["priority"], row["requests"]) for row in rows] == [("big", 5, 3), ("rest", 1, 2)]
        assert all(row["requests"] - row["refused"] == row["admitted"] == row["completed"] + row["other"] for row in rows)
        assert abs(sum(row["work"] for row in rows) - 1.0) < 1e-5


def test_an_answer_after_its_classs_deadline_is_not_good() -> None:
    arrivals = [Arrival(0.0, 150, 20, (), "", "", "model", 0, True, {"task": "trade"})]
    row = summary("x", world(arrivals, "fifo-rr", setting=Setting(classes=RULES)), ANY)["by_class"][0]
    assert (row["completed"], row["goodput"]) == (1, 0.0)
