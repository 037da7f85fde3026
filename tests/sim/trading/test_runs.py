"""The reference case in small: its shape, not its figures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from penstock.config import Class, Config
from penstock.gateway import settings
from penstock.sim.trading import collapse, place, runs, show, verdict
from penstock.sim.trading.ablation import ablations, loosest
from penstock.sim.trading.curve import Bell, Crowd
from penstock.sim.trading.verdict import Figure

ROOT = Path(__file__).resolve().parents[3]
SCALE = 0.1
BELL = place.Run(
    "bell", "", Bell(before=4_000.0, peak=12_000.0, after=8_000.0, at_s=2.0, rise_s=0.5, hold_s=3.0, fall_s=2.0), 7.0, 2.5, 5.5
)
OVERLOAD = place.Run("overload", "", Crowd(before=8_000.0, after=56_000.0, warm_s=3.0, at_s=4.0), 7.0, 4.5, 7.0)


@pytest.fixture(scope="module")
def config() -> Config:
    return settings.load(ROOT / "examples" / "trading.yaml")


@pytest.fixture(scope="module")
def overload(config: Config) -> dict[str, dict[str, Any]]:
    ways = [runs.before(config, SCALE), runs.after(config, SCALE)]
    # The entry process would be the bottleneck at so many calls: here it is the nodes that are looked at.
    return {result["way"]: result for result in runs.play(OVERLOAD, [free(way) for way in ways], SCALE, 0)}


def free(way: runs.Way) -> runs.Way:
    return replace(way, setting=replace(way.setting, entry=replace(way.setting.entry, cost_s=0.0)))


def rows(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["class"]: row for row in result["whole"]["by_class"]}


def test_the_example_has_five_classes_of_five_priorities(config: Config) -> None:
    assert [one.priority for one in config.classes] == [5, 4, 3, 2, 1]
    assert config.classes[-1].floor > 0


def test_the_bell_is_served_in_time_and_the_top_class_first(config: Config) -> None:
    (after,) = runs.play(BELL, [runs.after(config, SCALE)], SCALE, 0)
    assert after["window"]["whole_s"]["p99"] < 0.45
    assert after["whole"]["goodput"] > 0.9, "caches are cold at first"
    classes = rows(after)
    assert classes["block-trade"]["whole_s"]["p99"] < after["whole"]["whole_s"]["p99"]


def test_one_seed_is_one_result(config: Config) -> None:
    short = place.Run("short", "", Crowd(before=6_000.0, after=9_000.0, warm_s=1.0, at_s=1.5), 2.0, 1.0, 2.0)
    first = runs.play(short, [runs.after(config, SCALE)], SCALE, 3)
    assert first == runs.play(short, [runs.after(config, SCALE)], SCALE, 3)
    assert first != runs.play(short, [runs.after(config, SCALE)], SCALE, 4)


def test_under_overload_classes_are_served_by_priority_and_before_they_were_not(overload: dict[str, dict[str, Any]]) -> None:
    after, before = rows(overload["after"]), rows(overload["before"])
    assert after["block-trade"]["goodput"] > after["prediction"]["goodput"] + 0.3
    assert after["trade"]["goodput"] > after["prediction"]["goodput"]
    assert abs(before["block-trade"]["goodput"] - before["prediction"]["goodput"]) < 0.15
    assert after["block-trade"]["goodput"] > before["block-trade"]["goodput"] + 0.3


def test_under_overload_work_done_does_not_fall(overload: dict[str, dict[str, Any]]) -> None:
    assert overload["after"]["window"]["served_per_s"] > 1.2 * overload["before"]["window"]["served_per_s"]
    assert overload["after"]["window"]["utilisation"] > 0.8


def test_windows_tell_rates_of_the_whole_exchange(overload: dict[str, dict[str, Any]]) -> None:
    window = overload["before"]["window"]
    assert window["offered_per_s"] == pytest.approx(56_000, rel=0.1)
    assert 0.0 < window["busy"] <= 1.0


def test_runs_and_figures_are_told_in_tables(overload: dict[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    met = Figure(run="overload", way="after", what="p99", unit="s", measured=0.3, most=0.45)
    missed = Figure(run="overload", way="before", what="served", unit="/s", measured=7_000.0, least=8_000.0)
    show.report("trading", SCALE, list(overload.values()), [met, missed], 1.0)
    told = capsys.readouterr().out
    assert "the figures to quote are those of scale 1" in told
    assert re.search(r"overload, after: p99 +at most 450 ms +300 ms +pass", told)
    assert re.search(r"overload, before: served +at least 8,000/s +7,000/s +FAIL", told)
    assert told.count("block-trade") == 2


def test_an_ablation_is_told_as_one_row_a_part(overload: dict[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    show.report("trading", 1.0, list(overload.values()), [], 1.0)
    told = capsys.readouterr().out
    assert "figures" not in told
    assert re.search(r"\n after .*%.* Penstock", told) and re.search(r"\n before ", told)


def test_one_part_at_a_time_is_taken_away(config: Config) -> None:
    ways = {way.name: way for way in ablations(config, SCALE)}
    whole = ways.pop("after")
    assert whole.setting.config == config
    for name, way in ways.items():
        assert way.setting.classes == config.classes, "answers are judged by the same classes"
        assert (way.setting.config, way.preset, way.setting.entry) != (config, whole.preset, whole.setting.entry), name
    assert ways["no prefix"].preset.blind and not whole.preset.blind


def test_loosest_class_promises_what_all_do() -> None:
    made = loosest((Class(name="a", total_ms=100.0, ttft_ms=50.0), Class(name="b", total_ms=300.0)))
    assert (made.total_ms, made.ttft_ms) == (300.0, None)


def test_a_figure_is_met_inside_its_bounds() -> None:
    def figure(measured: float, **bounds: float) -> bool:
        return Figure(run="r", way="w", what="x", unit="s", measured=measured, **bounds).met

    assert figure(1.0, least=1.0) and figure(1.0, most=1.0)
    assert not figure(0.9, least=1.0) and not figure(1.1, most=1.0)
    assert figure(8_700.0, **verdict.near(8_000.0)) and not figure(8_900.0, **verdict.near(8_000.0))


def test_collapse_is_judged_before_and_after() -> None:
    def result(way: str, p99: float, refused: float) -> dict[str, Any]:
        return {"way": way, "calm": {"whole_s": {"p99": 0.2}}, "window": {"whole_s": {"p99": p99}, "errors": 0.0, "refused": refused}}

    found = collapse.figures([result("before", 9.0, 0.2), result("after", 0.1, 0.0)])
    assert [figure.met for figure in found] == [True] * 6
    found = collapse.figures([result("before", 0.3, 0.0), result("after", 9.0, 0.2)])
    assert [figure.met for figure in found] == [True, False, False] * 2
