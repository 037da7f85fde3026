"""Who calls at the bell, and with what."""

from __future__ import annotations

from collections import Counter

import pytest

from penstock.facts import BLOCK_TOKENS
from penstock.sim.arrival import Arrival
from penstock.sim.trading import desks


def made(seed: int = 0, scale: float = 1.0) -> list[Arrival]:
    return desks.arrivals(lambda at: 2_000.0, 5.0, seed, scale)


def test_one_seed_is_one_workload_in_order_of_time() -> None:
    first = made()
    assert first == made() != made(seed=1)
    assert [arrival.at_s for arrival in first] == sorted(arrival.at_s for arrival in first)
    assert first[0].at_s >= 0.0 and first[-1].at_s < 5.0


def test_rate_is_as_asked_and_scale_shrinks_it() -> None:
    assert len(made()) == pytest.approx(10_000, rel=0.1)
    assert len(made(scale=0.2)) == pytest.approx(2_000, rel=0.25)


def test_every_desk_and_service_calls_with_its_task_in_metadata() -> None:
    arrivals = made()
    assert {arrival.tenant for arrival in arrivals} == set(desks.DESKS)
    assert {arrival.model for arrival in arrivals} == {"prediction", "risk", "log"}
    assert {arrival.metadata["task"] for arrival in arrivals} == set(desks.TASKS)
    tasks = Counter(arrival.metadata["task"] for arrival in arrivals)
    assert tasks["trade"] > tasks["prediction"] > tasks["risk"]


def test_only_trades_have_amounts_and_few_are_above_a_million() -> None:
    arrivals = made()
    amounts = [float(arrival.metadata["amount"]) for arrival in arrivals if "amount" in arrival.metadata]
    assert len(amounts) == sum(arrival.metadata["task"] == "trade" for arrival in arrivals)
    assert 0.02 < sum(amount > 1_000_000 for amount in amounts) / len(amounts) < 0.08


def test_prompts_begin_with_shared_texts_and_long_ones_have_blocks_of_their_own() -> None:
    arrivals = made()
    for arrival in arrivals:
        assert len(arrival.blocks) == arrival.prompt_tokens // BLOCK_TOKENS
    shared = Counter(arrival.blocks[0] for arrival in arrivals)
    assert shared.most_common(1)[0][1] > 100
    own = [arrival.blocks[-1] for arrival in arrivals if arrival.model == "risk" and arrival.prompt_tokens >= 2_048 + BLOCK_TOKENS]
    assert own and len(set(own)) == len(own)


def test_answers_are_within_their_tasks_bounds() -> None:
    for arrival in made(scale=0.2):
        fewest, most = desks.TASKS[arrival.metadata["task"]].outputs
        assert fewest <= arrival.output_tokens <= most == arrival.max_tokens
