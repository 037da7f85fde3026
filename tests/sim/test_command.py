"""`penstock simulate` as a person runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.sim.test_report import KEYS

ROOT = Path(__file__).resolve().parent.parent.parent


def simulate(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "penstock", "simulate", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, timeout=120, check=False)


def results(*words: object) -> list[dict[str, Any]]:
    done = simulate(*words, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    parsed: list[dict[str, Any]] = json.loads(done.stdout)
    return parsed


QUICK = ("--scenario", "overload", "--limit", 300, "--nodes", 2, "--profile", "mooncake-demo")


def test_json_has_one_object_a_preset_with_the_promised_keys() -> None:
    ours, theirs = results(*QUICK, "--slo-ttft", 2, "--slo-ttft-per-1k", 0.25, "--slo-tpot", 0.1, "--compare", "penstock, fifo-rr")
    assert (ours["preset"], theirs["preset"]) == ("penstock", "fifo-rr")
    assert list(ours) == list(theirs) == [*KEYS, "pool_hit"]
    assert ours["requests"] == 300
    assert len(ours["by_prompt_length"]) == 4


def test_two_runs_with_one_seed_print_the_same_bytes() -> None:
    words = (*QUICK, "--slo-ttft", 1, "--seed", 3, "--compare", "penstock,two-choices,llmd-default")
    first = simulate(*words, "--json")
    assert first.stdout == simulate(*words, "--json").stdout
    assert first.stdout != simulate(*words[:-3], 4, *words[-2:], "--json").stdout
    assert simulate(*words).stdout == simulate(*words).stdout


def test_every_preset_runs_and_without_an_objective_nothing_is_refused() -> None:
    names = "penstock,fifo-rr,random,load-balance,least-requests,two-choices,consistent-hash,sglang-cache-aware,llmd-default,llmd-load"
    for result in results(*QUICK, "--compare", names):
        assert (result["completed"], result["refused"], result["goodput"]) == (300, 0, 1.0), result["preset"]


def test_without_an_objective_the_report_is_of_routing() -> None:
    words = ("--scenario", "shared-prefix", "--limit", 100, "--nodes", 2, "--compare", "penstock,random")
    done = simulate(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "one pool" in done.stdout and "goodput" not in done.stdout
    assert all(0.0 < result["pool_hit"] < 1.0 for result in results(*words))


def test_a_profile_is_run_with_another_step_and_memory() -> None:
    words = ("--scenario", "shared-prefix", "--limit", 150, "--nodes", 2)
    large, small = results(*words)[0], results(*words, "--kv-tokens", 20_000)[0]
    assert small["pool_hit"] < large["pool_hit"]
    assert results(*words, "--chunk", 256)[0]["itl_s"] != large["itl_s"]
    wrong = simulate(*words, "--chunk", 3)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1) and "--chunk 3: expected 16 to" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--scenario", "mooncake"), "--scenario mooncake: give --trace FILE, conversation_trace.jsonl"),
        (("--scenario", "mooncake", "--trace", "no.jsonl"), "no.jsonl"),
        (("--scenario", "llmd", "--trace", "x.jsonl"), "not both"),
        (("--scenario", "llmd", "--nodes", 2, "--chunk", 64), "--nodes, --chunk: not with --scenario llmd, which takes --seed and --json"),
        (("--scenario", "deepseek", "--hog", "a:2"), "--hog: not with --scenario deepseek, which takes --trace, --seed and --json"),
    ],
)
def test_wrong_use_of_a_published_setting_is_one_line(tmp_path: Path, words: tuple[object, ...], says: str) -> None:
    done = simulate(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert says in done.stderr


def test_terminal_report_names_presets_and_objective() -> None:
    done = simulate(*QUICK, "--slo-ttft", 2, "--compare", "penstock,fifo-rr")
    assert (done.returncode, done.stderr) == (0, "")
    assert "300 requests in" in done.stdout
    assert "2 x mooncake-demo; good: first token within 2 s" in done.stdout
    assert "█" in done.stdout
    assert done.stdout.count("fifo-rr") == 1


def test_mixed_fleets_pair_counts_with_profiles() -> None:
    done = simulate(*QUICK, "--nodes", 3, "--profile", "qwen3-32b-h100-tp2")
    assert "on 2 x mooncake-demo + 3 x qwen3-32b-h100-tp2" in done.stdout


def test_trace_window_speedup_and_faults_are_taken(tmp_path: Path) -> None:
    rows = [f'{{"timestamp": {1000 * at}, "input_length": 100, "output_length": 10}}' for at in range(100)]
    (tmp_path / "trace").write_text("\n".join(rows))
    (tmp_path / "faults").write_text("- {at_s: 5, node: n0, do: kill}")
    words = ("--trace", tmp_path / "trace", "--window", "10:60", "--nodes", 1, "--speedup", 5, "--faults", tmp_path / "faults")
    result = results(*words, "--profile", "mooncake-demo", "--preset", "least-requests")[0]
    assert result["requests"] == 50
    assert result["completed"] < 50


def test_list_names_everything_there_is() -> None:
    done = simulate("--list")
    assert done.returncode == 0
    for name in ("sglang-cache-aware", "mooncake-demo", "deepseek-v3-h200-tp8", "shared-prefix"):
        assert name in done.stdout


def test_help_teaches_by_example() -> None:
    done = simulate("--help")
    assert done.returncode == 0
    assert "penstock simulate --scenario overload --slo-ttft 2 --slo-tpot 0.1 --compare penstock,fifo-rr" in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "give --trace FILE or --scenario NAME, one of: steady, burst"),
        (("--trace", "t.jsonl", "--scenario", "chat"), "give --trace FILE or --scenario NAME, not both"),
        (("--scenario", "steady", "--trace", "x"), "give --trace FILE or --scenario NAME"),
        (
            ("--scenario", "none"),
            "unknown scenario 'none'; known: steady, burst, tenants, overload, shared-prefix, chat, trading, collapse",
        ),
        (("--scenario", "steady", "--preset", "best"), "unknown preset 'best'; known: penstock, fifo-rr"),
        (("--scenario", "steady", "--compare", "penstock,"), "unknown preset ''; known: penstock"),
        (("--scenario", "steady", "--profile", "h100"), "no profile 'h100'; there are mooncake-demo"),
        (("--trace", "none.jsonl"), "none.jsonl: no such file"),
        (("--trace", "none", "--format", "xml"), "unknown format 'xml'; known: mooncake"),
        (("--scenario", "steady", "--speedup", "0"), "--speedup 0: expected a number above 0"),
        (("--scenario", "steady", "--speedup", "nan"), "--speedup nan: expected"),
        (("--scenario", "steady", "--slo-ttft", "-1"), "--slo-ttft -1: expected"),
        (("--scenario", "steady", "--slo-tpot", "inf"), "--slo-tpot inf: expected"),
        (("--scenario", "steady", "--slo-ttft", "1", "--slo-ttft-per-1k", "-1"), "--slo-ttft-per-1k -1: expected"),
        (("--scenario", "steady", "--slo-ttft-per-1k", "1"), "give that too"),
        (("--scenario", "steady", "--nodes", "0"), "--nodes 0: expected 1 to"),
        (("--scenario", "steady", "--nodes", "1", "--nodes", "2", "--profile", "mooncake-demo"), "2 --nodes for 1 --profile"),
        (("--scenario", "steady", "--limit", "0"), "--limit 0: expected 1 or more"),
        (("--scenario", "steady", "--window", "5"), "--window 5: expected START:END"),
        (("--scenario", "steady", "--window", "5000:6000"), "no request of scenario steady is inside"),
        (("--scenario", "steady", "--faults", "none.yaml"), "none.yaml: no such file"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    done = simulate(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("penstock: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


RULES = """
classes:
  - {name: trades, when: {metadata: {task: trade}}, priority: 5, total_ms: 300}
  - {name: rest, priority: 1, total_ms: 500}
"""


def test_trading_scenario_is_judged_by_the_classes_of_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RULES)
    done = simulate("--scenario", "trading", "--scale", 0.02, "--config", tmp_path / "mine.yaml", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert [(one["run"], one["way"]) for one in found["results"]] == [
        (run, way) for run in ("bell", "ramp", "overload") for way in ("before", "after")
    ]
    assert [row["class"] for row in found["results"][0]["whole"]["by_class"]] == ["trades", "rest"]
    assert {figure["met"] for figure in found["figures"]} <= {True, False}


def test_configuration_also_gives_classes_to_other_workloads(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("classes: [{name: long, when: {prompt_tokens: {gt: 2000}}, priority: 1}, {name: short}]")
    done = simulate(*QUICK, "--config", tmp_path / "mine.yaml", "--compare", "penstock,fifo-rr", "--json")
    for result in json.loads(done.stdout):
        assert [row["class"] for row in result["by_class"]] == ["long", "short"]


@pytest.mark.parametrize(
    ("words", "text", "says"),
    [
        (("--scale", "0"), RULES, "--scale 0: expected 0.02 to 1"),
        (("--scale", "2"), RULES, "--scale 2: expected 0.02 to 1"),
        (("--scale", "nan"), RULES, "--scale nan: expected"),
        ((), "hold: {quiet_s: 1}", "it has no classes"),
        ((), "classes: [{name: a, priority: 9}]", "mine.yaml:1: classes[0].priority: expected"),
        ((), None, "mine.yaml: No such file"),
        (("--trace", "x.jsonl"), RULES, "not both"),
        (("--speedup", "2"), RULES, "--speedup"),
    ],
)
def test_wrong_use_of_the_trading_scenario_is_one_line(tmp_path: Path, words: tuple[str, ...], text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "mine.yaml").write_text(text)
    done = simulate("--scenario", "trading", "--config", "mine.yaml", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert says in done.stderr


def test_conversation_trace_at_three_times_its_speed(data: Path) -> None:
    trace = data / "mooncake_conversation.jsonl.gz"
    presets = "penstock,fifo-rr,sglang-cache-aware"
    words = ("--trace", trace, "--nodes", 8, "--profile", "mooncake-demo", "--speedup", 3, "--slo-ttft", 2, "--slo-tpot", 0.1)
    found = {result["preset"]: result for result in results(*words, "--compare", presets)}
    assert found["penstock"]["goodput"] >= 0.87
    assert found["fifo-rr"]["goodput"] < 0.1
    assert found["sglang-cache-aware"]["goodput"] < 0.1


def test_a_hog_is_shown_beside_the_quiet_run() -> None:
    words = ("--scenario", "tenants", "--limit", 200, "--hog", "t0:5")
    result = results(*words)[0]
    assert list(result) == [*KEYS, "pool_hit", "hog"]
    assert (result["hog"]["tenant"], result["hog"]["factor"]) == ("t0", 5)
    assert result["hog"]["others"]["requests"] < 200
    assert "beside t0 at 5 times its rate" in simulate(*words).stdout
    wrong = simulate("--scenario", "tenants", "--limit", 200, "--hog", "nobody:5")
    assert wrong.returncode != 0 and "no tenant 'nobody'" in wrong.stderr
