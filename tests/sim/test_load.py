"""The built-in workloads."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from statistics import mean, median, stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import TraceError
from penstock.facts import BLOCK_TOKENS
from penstock.sim.load import SCENARIOS, Client, Scenario, Size, generate, scenario

SIZE = Size(100)


def only(client: Client, duration_s: float = 100.0, seed: int = 0) -> list[float]:
    return [arrival.at_s for arrival in generate(Scenario(about="", duration_s=duration_s, clients={"c": client}), seed)]


@settings(max_examples=20)
@given(st.floats(1.0, 20.0), st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from(["Gamma", "Weibull"]), st.integers(0, 1000))
def test_rate_comes_out_right(rate: float, cv: float, kind: str, seed: int) -> None:
    times = only(Client(rate=rate, cv=cv, kind=kind, prompt=SIZE, output=SIZE), 2_000 / rate, seed)  # type: ignore[arg-type]
    assert len(times) == pytest.approx(2_000, abs=6 * cv * 2_000**0.5 + 10)
    assert times == sorted(times)
    assert all(0.0 <= at < 2_000 / rate for at in times)


@pytest.mark.parametrize("kind", ["Gamma", "Weibull"])
@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_bursts_come_out_right(kind: str, cv: float) -> None:
    times = only(Client(rate=10.0, cv=cv, kind=kind, prompt=SIZE, output=SIZE), 4_000.0)  # type: ignore[arg-type]
    gaps = [after - before for before, after in pairwise(times)]
    assert stdev(gaps) / mean(gaps) == pytest.approx(cv, rel=0.1)


def test_a_short_window_holds_no_more_than_its_share() -> None:
    bursty = Client(rate=1.0, cv=4.0, prompt=SIZE, output=SIZE)
    counts = [len(only(bursty, 50.0, seed)) for seed in range(300)]
    assert mean(counts) == pytest.approx(50, rel=0.12)


def test_lengths_have_the_asked_median_and_bound() -> None:
    arrivals = generate(
        Scenario(about="", duration_s=500.0, clients={"c": Client(rate=10.0, prompt=Size(300, 3.0, 1_000), output=Size(50))}), 0
    )
    assert median(arrival.prompt_tokens for arrival in arrivals) == pytest.approx(300, rel=0.1)
    assert max(arrival.prompt_tokens for arrival in arrivals) == 1_000
    assert min(arrival.prompt_tokens for arrival in arrivals) >= 1


def test_shared_prefixes_share_blocks_and_no_more() -> None:
    client = Client(rate=5.0, prompt=Size(2_000, 1.2), output=SIZE, prefixes=3, prefix_tokens=1_100)
    arrivals = generate(Scenario(about="", duration_s=60.0, clients={"c": client}), 0)
    assert {len(arrival.blocks) for arrival in arrivals} == {arrival.prompt_tokens // BLOCK_TOKENS for arrival in arrivals}
    shared = Counter(arrival.blocks[:2] for arrival in arrivals)
    assert len(shared) == 3
    thirds = [arrival.blocks[2] for arrival in arrivals]
    assert len(set(thirds)) == len(thirds)


def test_turns_of_a_conversation_hold_the_turns_before() -> None:
    client = Client(rate=0.05, prompt=Size(1_000), output=Size(300), turns=4.0, think_s=5.0)
    arrivals = generate(Scenario(about="", duration_s=400.0, clients={"c": client}), 1)
    sessions: dict[str, list[int]] = {}
    seen: dict[str, tuple[int, ...]] = {}
    for arrival in arrivals:
        sessions.setdefault(arrival.session, []).append(arrival.prompt_tokens)
        before = seen.get(arrival.session, ())
        assert arrival.blocks[: len(before)] == before
        seen[arrival.session] = arrival.blocks
    assert all(prompts == sorted(prompts) for prompts in sessions.values())
    assert max(map(len, sessions.values())) > 2


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios_are_the_same_for_the_same_seed(name: str) -> None:
    work = scenario(name)
    arrivals = generate(work, 5)
    assert arrivals == generate(work, 5)
    assert arrivals != generate(work, 6)
    assert all(0.0 <= arrival.at_s < work.duration_s for arrival in arrivals)
    assert len(arrivals) > 1_000


def test_unknown_scenario_names_the_known_ones() -> None:
    with pytest.raises(TraceError, match="unknown scenario 'x'; known: steady, burst, tenants, overload, shared-prefix, chat"):
        scenario("x")
