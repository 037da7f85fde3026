"""Loads against a scripted engine: what is counted, and what is measured from known delays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import uvloop
from tests.load.server import DONE, END, HEAD, Engine, Part, answer, chunk, error, event, piece, plain

from penstock.load.bench import Plan, Watch, bench
from penstock.load.plan import Planned, Shape
from penstock.load.report import Json
from penstock.load.slo import Slo
from penstock.load.target import Target, Unreachable

Behave = Callable[[int, dict[str, Any]], list[Part]]
SHAPE = Shape(20, 5)


def load(behave: Behave, watch: Watch | None = None, **options: Any) -> tuple[Json, Engine]:
    """Runs one load against an engine that behaves so."""

    async def run() -> tuple[Json, Engine]:
        async with Engine(behave) as engine:
            plan = Plan(**{"slo": Slo(), "shape": SHAPE, **options})
            return await bench(Target(engine.url, None), plan, watch or Watch()), engine

    return uvloop.run(run())


def rows(*times: float, shape: Shape = SHAPE) -> list[Planned]:
    return [Planned(at, shape) for at in times]


def cycle(*behaviours: list[Part]) -> Behave:
    return lambda index, body: behaviours[index % len(behaviours)]


def test_every_call_is_counted_once() -> None:
    result, engine = load(lambda index, body: answer(body["max_tokens"], 0.0, 0.0), rate=200.0, duration_s=0.5)
    assert result["requests"] == result["completed"] == len(engine.bodies) > 50
    assert (result["goodput"], result["refused"], result["statuses"]) == (1.0, 0, {"200": result["requests"]})
    assert result["good_per_s"] == pytest.approx(result["requests"] / 0.5, rel=0.3)
    assert result["output_tokens_per_s"] == pytest.approx(5 * result["requests"] / 0.5, rel=0.3)
    assert not any(result["errors"].values())


def test_times_follow_the_engines_delays() -> None:
    result, _ = load(cycle(answer(5, 0.2, 0.05)), rows=rows(*(index * 0.02 for index in range(20))))
    assert 0.19 <= result["ttft_s"]["p50"] < 0.3
    assert 0.045 <= result["tpot_s"]["p50"] < 0.08
    assert 0.045 <= result["itl_s"]["p50"] < 0.08


def test_latency_counts_from_the_intended_start() -> None:
    """A hundred calls are due in the same instant: the last of them is sent late, and its wait is in the figures."""
    result, _ = load(cycle(answer(2, 0.1, 0.0)), rows=rows(*[0.0] * 100))
    assert result["requests"] == 100
    assert result["late_s"]["p99"] > 0
    assert result["ttft_s"]["p99"] >= result["late_s"]["p99"] * 0.9 + 0.09


def test_slow_answers_are_complete_but_not_good() -> None:
    slow_start, slow_tokens, good = answer(3, 0.3, 0.0), answer(3, 0.0, 0.1), answer(3, 0.0, 0.0)
    result, _ = load(cycle(slow_start, slow_tokens, good), rows=rows(*(at / 100 for at in range(9))), slo=Slo(ttft_s=0.2, tpot_s=0.06))
    assert (result["completed"], result["goodput"]) == (9, pytest.approx(1 / 3, abs=1e-5))


def test_longer_prompts_get_more_time_when_asked() -> None:
    planned = [*rows(0.0, shape=Shape(10, 2)), *rows(0.01, shape=Shape(4_000, 2))]
    result, _ = load(cycle(answer(2, 0.3, 0.0)), rows=planned, slo=Slo(ttft_s=0.1, ttft_per_1k_s=0.2))
    assert result["goodput"] == 0.5
    assert result["by_prompt_length"] == [
        {"prompt_tokens": [10, 10], "requests": 1, "goodput": 0.0},
        {"prompt_tokens": [4_000, 4_000], "requests": 1, "goodput": 1.0},
    ]


def test_refusals_keep_their_retry_after() -> None:
    refusals: tuple[list[Part], ...] = (
        error(429, "slow down", b"retry-after: 2\r\nretry-after-ms: 1500\r\n"),
        error(503, "full", b"retry-after: 7\r\n"),
        error(503, "full"),
        [HEAD, event({"error": {"message": "full", "retry_after_ms": 4_000}}) + END],
    )
    result, _ = load(cycle(*refusals), rows=rows(*(at / 100 for at in range(4))))
    assert (result["refused"], result["completed"], result["goodput"]) == (4, 0, 0.0)
    assert result["refusals"] == {
        "with_retry_after": 0.75,
        "inside_streams": 1,
        "retry_after_s": {"min": 1.5, "p50": 4.0, "max": 7.0},
    }
    assert result["statuses"] == {"200": 1, "429": 1, "503": 2}
    assert not any(result["errors"].values())


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("stream_error", [HEAD + piece(), event({"error": {"message": "engine died"}}) + END]),
        ("stream_error", [HEAD + piece(), event({"error": {"message": "full", "retry_after_ms": 10}}), None]),
        ("stream_error", [HEAD + chunk(b"data: {broken\n\n") + DONE + END]),
        ("truncated", [HEAD + piece() + END]),
        ("truncated", [HEAD + piece(), 0.01, None]),
        ("truncated", [HEAD, 0.01, None]),
        ("reset", [0.01, None]),
        ("protocol", [b"what is this\r\n\r\n"]),
        ("http_5xx", error(500, "broken")),
        ("http_5xx", error(502, "no engine")),
        ("http_4xx", error(404, "no such model")),
        ("protocol", plain(200, b"not json")),
    ],
)
def test_bad_ends_are_told_apart(kind: str, parts: list[Part]) -> None:
    result, _ = load(cycle(parts), rows=rows(0.0, 0.01))
    assert {name: count for name, count in result["errors"].items() if count} == {kind: 2}
    assert (result["requests"], result["completed"], result["goodput"]) == (2, 0, 0.0)
    assert kind in result["messages"]


def test_silent_server_is_a_timeout() -> None:
    result, engine = load(cycle([HEAD, 60.0]), rows=rows(0.0, 0.0), timeout_s=0.4)
    assert (result["requests"], result["errors"]["timeout"]) == (2, 2)
    assert engine.running == 0


def test_trace_is_sent_at_its_own_times() -> None:
    times = [10.0, 10.5, 10.5, 11.5, 13.0]
    result, engine = load(cycle(answer(1, 0.0, 0.0)), rows=rows(*times), speedup=2.0)
    gaps = [later - earlier for earlier, later in pairwise(engine.arrived)]
    assert gaps == pytest.approx([0.25, 0.0, 0.5, 0.75], abs=0.15)
    assert (result["mode"], result["requests"]) == ("trace", 5)


def test_trace_prompts_share_what_their_blocks_share() -> None:
    one, two = Shape(1_100, 2, (1, 2, 3)), Shape(1_100, 2, (1, 2, 4))
    _, engine = load(cycle(answer(2, 0.0, 0.0)), rows=[Planned(0.0, one), Planned(0.05, two)])
    texts = [body["messages"][0]["content"] for body in engine.bodies]
    assert texts[0][:4_096] == texts[1][:4_096]
    assert texts[0][4_096:] != texts[1][4_096:]


def test_closed_loop_keeps_its_callers_busy() -> None:
    running: list[int] = []

    async def run() -> Json:
        def behave(index: int, body: dict[str, Any]) -> list[Part]:
            running.append(engine.running)
            return answer(2, 0.02, 0.0)

        async with Engine(behave) as engine:
            return await bench(Target(engine.url, None), Plan(slo=Slo(), shape=SHAPE, callers=3, duration_s=0.6), Watch())

    result = uvloop.run(run())
    assert max(running) == 3
    assert result["mode"] == "closed"
    assert 20 < result["completed"] == result["requests"] <= 3 * 31


def test_refused_callers_wait_before_they_ask_again() -> None:
    result, _ = load(cycle(error(503, "full", b"retry-after: 1\r\n")), callers=2, duration_s=0.5)
    assert result["refused"] == 2


def test_answers_that_are_not_streamed_are_measured_whole() -> None:
    body = b'{"choices":[{"message":{"content":"hi"}}],"usage":{"completion_tokens":4}}'
    result, engine = load(cycle([0.1, *plain(200, body)]), rows=rows(0.0), stream=False)
    assert (result["completed"], result["goodput"]) == (1, 1.0)
    assert result["ttft_s"]["p50"] >= 0.09
    assert result["tpot_s"]["p50"] is None
    assert "stream" not in engine.bodies[0]


def test_interrupt_prints_what_was_seen() -> None:
    watch = Watch()

    async def run() -> Json:
        async with Engine(lambda index, body: answer(2, 0.0 if index < 5 else 60.0, 0.0)) as engine:
            task = asyncio.create_task(bench(Target(engine.url, None), Plan(slo=Slo(), shape=SHAPE, rate=50.0, duration_s=600.0), watch))
            while not task.done() and (engine.running < 3 or watch.run is None or watch.run.tally.ended < 5):
                await asyncio.sleep(0.005)
            watch.interrupt()
            return await asyncio.wait_for(task, 5)

    result = uvloop.run(run())
    assert result["interrupted"]
    assert (result["requests"], result["completed"]) == (5, 5)
    assert 0 < result["span_s"] < 30


def test_capacity_of_a_limited_server_is_found() -> None:
    """Calls that a slot of 10 ms could not take within 0.2 s are refused: about 100 calls a second go in, the rest is refused at once."""
    limit_per_s, granted = 100.0, 0.0

    def behave(index: int, body: dict[str, Any]) -> list[Part]:
        nonlocal granted
        now = asyncio.get_running_loop().time()
        granted = max(granted, now - 0.2)
        if granted > now:
            return error(503, "full", b"retry-after: 1\r\n")
        granted += 1 / limit_per_s
        return answer(2, 0.0, 0.0)

    result, _ = load(behave, find=True, duration_s=0.3, start_rate=32.0, slo=Slo(ttft_s=0.5, tpot_s=0.05))
    assert limit_per_s * 0.6 < result["capacity_per_s"] < limit_per_s * 1.4
    assert [step["rate"] for step in result["steps"][:2]] == [32.0, 64.0]
    assert any(not step["passed"] and step["refused"] for step in result["steps"])


def test_search_gives_up_on_answers_that_can_no_longer_be_good() -> None:
    result, engine = load(cycle(answer(2, 60.0, 0.0)), find=True, duration_s=0.1, start_rate=0.1, slo=Slo(ttft_s=0.1, tpot_s=0.0))
    assert result["capacity_per_s"] == 0.0
    assert engine.running == 0


def test_model_is_the_first_that_the_server_lists() -> None:
    result, engine = load(cycle(answer(1, 0.0, 0.0)), rows=rows(0.0))
    assert result["model"] == engine.bodies[0]["model"] == "tiny"
    result, engine = load(cycle(answer(1, 0.0, 0.0)), rows=rows(0.0), model="other")
    assert result["model"] == engine.bodies[0]["model"] == "other"


def test_wrong_key_is_said_before_the_load() -> None:
    async def run() -> None:
        async with Engine(cycle(answer(1, 0.0, 0.0)), key="right") as engine:
            plan = Plan(slo=Slo(), shape=SHAPE, rows=rows(0.0))
            assert (await bench(Target(engine.url, "right"), plan, Watch()))["completed"] == 1
            with pytest.raises(Unreachable, match="401: wrong key"):
                await bench(Target(engine.url, "wrong"), plan, Watch())
            assert len(engine.bodies) == 1

    uvloop.run(run())


def test_dead_port_is_said_before_the_load() -> None:
    async def run() -> None:
        async with Engine(cycle()) as engine:
            url = engine.url
        with pytest.raises(Unreachable, match="connect"):
            await bench(Target(url, None), Plan(slo=Slo(), shape=SHAPE, rate=1.0), Watch())

    uvloop.run(run())
