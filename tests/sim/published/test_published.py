"""Published settings: what their worlds show in a short window, and how a figure is judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.facts import BLOCK_TOKENS
from penstock.sim import traces
from penstock.sim.arrival import Arrival
from penstock.sim.published import command, deepseek, llmd, mooncake
from penstock.sim.published.figure import Figure, rebuilt
from penstock.sim.report import Json
from penstock.sim.run import Plan, simulate
from penstock.sim.traces.ask import Ask

SHORT = ((3.0, 10.0), (30.0, 15.0), (45.0, 15.0))


def conversation(data: Path, end_s: float, speedup: float = 1.0) -> list[Arrival]:
    trace = data / "mooncake_conversation.jsonl.gz"
    return traces.read(trace, None, Ask(start_s=0.0, end_s=end_s, speedup=speedup, limit=None, seed=0))


def by_preset(rows: list[Json]) -> dict[str, Json]:
    return {row["preset"]: row for row in rows}


def test_a_figure_is_judged_by_what_was_asked_for_and_else_only_shown() -> None:
    assert not Figure(what="a", ours=1.0).judged and Figure(what="a", ours=1.0).row()["met"] is None
    assert Figure(what="a", ours=1.0, most=1.0).met and not Figure(what="a", ours=1.1, most=1.0).met
    assert Figure(what="a", ours=1.0, least=1.0).met and not Figure(what="a", ours=0.9, least=1.0).met
    assert rebuilt("a", "s", 10.0, 11.4).met and not rebuilt("a", "s", 10.0, 8.4).met


def test_llmd_sends_each_of_its_prompts_once_a_round_and_shares_as_much_as_published() -> None:
    prompts = llmd.Prompts(3)
    sent = [prompts.next(0.0) for _ in range(2 * 750)]
    assert len({one.blocks for one in sent[:750]}) == 750
    assert [one.blocks for one in sent[:750]] == [one.blocks for one in sent[750:]]
    distinct = len({block for one in sent for block in one.blocks}) * BLOCK_TOKENS
    assert distinct == pytest.approx(150 * (6_000 + 5 * 1_200), rel=0.02)
    assert all(one.prompt_tokens == 7_200 and 1 <= one.output_tokens <= 1_000 for one in sent)


def test_llmd_in_a_few_stages_random_is_late_and_ours_is_not() -> None:
    found = by_preset(llmd.results(0, stages=SHORT, presets=("random", "penstock")))
    random, ours = found["random"], found["penstock"]
    assert random["completed"] == random["requests"] and ours["completed"] == ours["requests"]
    assert ours["output_tokens_per_s"] > 1.5 * random["output_tokens_per_s"]
    assert ours["ttft_s"]["p90"] < 0.01 * random["ttft_s"]["p90"]
    assert ours["prefix_hit"] > 0.9 * ours["pool_hit"]
    assert [stage["rate"] for stage in ours["stages"]] == [rate for rate, _ in SHORT]


def test_mooncake_in_a_short_window_ours_is_far_from_random(data: Path) -> None:
    found = by_preset(mooncake.results(conversation(data, 600.0), 0))
    ours = found["penstock"]
    assert ours["ttft_s"]["mean"] < 0.5 * found["random"]["ttft_s"]["mean"]
    assert ours["ttft_s"]["mean"] < found["load-balance"]["ttft_s"]["mean"]
    assert ours["prefix_hit"] > 0.85 * ours["pool_hit"]


def test_deepseek_in_a_short_window_ours_is_ahead_of_round_robin_and_more_so_with_load(data: Path) -> None:
    rows = deepseek.results(conversation(data, 400.0), 0)
    figures = {one.what: one for one in deepseek.figures(rows)}
    assert figures["1x: mean TTFT / round robin's"].ours < 0.8
    assert figures["4x: mean TTFT / round robin's"].ours < figures["1x: mean TTFT / round robin's"].ours
    assert figures["this gateway, prefix hit / one pool's"].met


@pytest.mark.parametrize("speedup", [1.0, 2.0])
def test_conversation_hits_are_near_one_pools_and_first_tokens_before_any_baselines(data: Path, speedup: float) -> None:
    arrivals = conversation(data, 900.0, speedup)
    presets = ("penstock", "fifo-rr", "least-requests", "load-balance", "consistent-hash", "sglang-cache-aware", "llmd-default")
    ours, *theirs = simulate(Plan(arrivals=arrivals, fleet=[deepseek.profile()] * 8, presets=presets))
    assert ours["refused"] == 0
    assert ours["prefix_hit"] >= 0.9 * ours["pool_hit"]
    assert ours["ttft_s"]["mean"] <= min(result["ttft_s"]["mean"] for result in theirs)


def test_the_report_shows_published_and_own_figures_and_fails_where_one_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"preset": "penstock", "setting": "2x", "ttft_s": dict.fromkeys(("mean", "p50", "p90", "p99"), 0.5), "itl_s": {"p50": None},
           "prefix_hit": 0.3, "pool_hit": 0.4, "output_tokens_per_s": 12.0}  # fmt: skip
    missed = [Figure(what="one", unit="x", theirs=0.2, ours=0.3, most=0.25), Figure(what="other", unit="s", ours=0.3)]
    command.report(command.Ask(scenario="llmd"), [row], missed, 1.0)
    shown = capsys.readouterr().out
    assert "2x penstock" in shown and "40.0%" in shown
    assert "at most 0.25" in shown and shown.count("FAIL") == 1 and "pass" not in shown
