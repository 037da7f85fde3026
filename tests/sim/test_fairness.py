"""The service gap, against windows worked out by hand."""

from __future__ import annotations

from tests.sim.fleet import world

from penstock.facts import Outcome
from penstock.sim.arrival import Arrival
from penstock.sim.fairness import Served, fairness, joined, sentence
from penstock.sim.world import Trip


def trip(tenant: str, at: float, first: float, end: float, prompt: int = 0, output: int = 0) -> Trip:
    return Trip(Arrival(at, prompt, output, tenant=tenant), Outcome.COMPLETED, 0, first, end)


def test_gap_is_between_those_that_waited_all_through_a_window() -> None:
    trips = [
        *(trip("a", 0.0, 1.0 + number, 1.0 + number, prompt=60) for number in range(70)),
        trip("b", 0.0, 65.0, 70.0, prompt=600),
        trip("c", 5.0, 6.0, 7.0, prompt=9_999),
    ]
    result = fairness(trips)
    assert result is not None
    assert (result["tenants"], result["windows"], result["backlogged"]) == (3, 1, 2)
    assert result["gap_tokens_per_s"] == 59.0, "59 of a's prompts begin before 60 s, and none of b's"


def test_output_counts_twice_and_as_it_is_written() -> None:
    served = Served([trip("a", 0.0, 10.0, 30.0, prompt=100, output=200)])
    assert served.service(0.0, 60.0) == 500.0
    assert served.service(0.0, 20.0) == 300.0
    assert served.service(20.0, 25.0) == 100.0


def test_a_pause_in_waiting_ends_the_backlog() -> None:
    served = Served([trip("a", 0.0, 10.0, 11.0), trip("a", 9.0, 20.0, 21.0), trip("a", 25.0, 90.0, 91.0)])
    assert served.backlogged(0.0, 20.0) and served.backlogged(25.0, 90.0)
    assert not served.backlogged(0.0, 26.0) and not served.backlogged(20.0, 60.0)
    assert joined([(5.0, 6.0), (0.0, 2.0), (2.0, 3.0)]) == [(0.0, 3.0), (5.0, 6.0)]


def test_one_tenant_has_no_gap_and_two_that_never_wait_none_either() -> None:
    assert fairness([trip("a", 0.0, 1.0, 2.0)]) is None
    result = fairness([trip("a", 0.0, 1.0, 200.0), trip("b", 0.0, 1.0, 200.0)])
    assert result is not None and result["gap_tokens_per_s"] is None and result["windows"] == 0


def test_turns_halve_the_gap_of_first_come_first_served() -> None:
    """A tenant with ten times the requests of another, both waiting all the time on one node."""
    flood = [Arrival(0.01 * number, 400, 40, tenant="flood") for number in range(2_000)]
    arrivals = sorted(flood + [Arrival(0.1 * number, 400, 40, tenant="b") for number in range(400)], key=lambda one: one.at_s)
    gaps = []
    for preset in ("fifo-rr", "penstock"):
        result = fairness(world(arrivals, preset, nodes=1).trips)
        assert result is not None and result["windows"]
        gaps.append(result["gap_tokens_per_s"])
        assert "weighted tokens/s apart" in sentence(preset, result)
    assert gaps[1] <= 0.5 * gaps[0]
