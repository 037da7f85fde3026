"""Whether engines live, and what they say of themselves."""

from __future__ import annotations

import pytest
from tests.gateway.world import BODY, MODEL, Caller, World, ask, chunk, event, get, run, stream_then, until, world

from penstock.config import Class, Config
from penstock.core import Core
from penstock.facts import NodeSnapshot

FAST = Config(probe_s=0.02)


def _node(w: World, index: int = 0) -> NodeSnapshot:
    return w.gateway.core.snapshot(0.0).nodes[index]


def test_metrics_reach_the_core_as_signals() -> None:
    async def test() -> None:
        async with world(config=FAST) as w:
            w.engines[0].metrics = (
                b'vllm:num_requests_running{model_name="m"} 3.0\nvllm:num_requests_waiting{model_name="m"} 2.0\n'
                b'vllm:kv_cache_usage_perc{model_name="m"} 0.5\n'
            )
            await until(lambda: _node(w).reported.running == 3)
            assert (_node(w).reported.waiting, _node(w).reported.kv_usage) == (2, 0.5)

    run(test)


def test_an_engine_without_metrics_or_health_lives_as_long_as_it_answers() -> None:
    async def test() -> None:
        async with world(config=FAST) as w:
            await until(lambda: w.engines[0].probes > 10)
            assert _node(w).state == "up"
            assert _node(w).reported.running is None

    run(test)


def test_models_are_asked_of_nodes_that_have_none_configured() -> None:
    async def test() -> None:
        async with world(config=FAST, models=()) as w:
            w.engines[0].models = [MODEL, "deepseek-r1"]
            await until(lambda: w.gateway.core.models() == [MODEL, "deepseek-r1"])
            assert (await ask(w.port, BODY | {"model": "deepseek-r1"})).status == 200
            assert (await ask(w.port, BODY | {"model": "gpt-9"})).status == 404

    run(test)


def test_a_node_with_configured_models_is_not_asked() -> None:
    async def test() -> None:
        async with world(config=FAST) as w:
            w.engines[0].models = ["another"]
            await until(lambda: w.engines[0].probes > 10)
            assert w.gateway.core.models() == [MODEL]

    run(test)


def test_a_refused_connection_loses_the_node_at_once_and_its_return_is_seen() -> None:
    # While no node is up a request waits for one, as long as its class allows.
    brief = Config(probe_s=0.02, classes=(Class(name="brief", ttft_ms=100),))

    async def test() -> None:
        async with world(config=brief) as w:
            engine = w.engines[0]
            await engine.stop()
            await until(lambda: _node(w).state == "lost")
            got = await ask(w.port, BODY, headers={"x-request-id": "a"})
            assert (got.status, got.error["code"]) == (503, "unavailable")
            assert got.headers["retry-after"]
            await engine.start()
            await until(lambda: _node(w).state == "up")
            assert (await ask(w.port, BODY)).status == 200

    run(test)


def test_a_sick_node_is_lost_after_three_probes() -> None:
    async def test() -> None:
        async with world(config=FAST) as w:
            engine = w.engines[0]
            await until(lambda: engine.probes > 2)
            engine.healthy = False
            seen = engine.probes
            await until(lambda: _node(w).state == "lost")
            assert engine.probes - seen >= 3
            engine.healthy = True
            await until(lambda: _node(w).state == "up")

    run(test)


def test_a_lost_node_keeps_the_answers_that_still_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    more = [event(" more") for _ in range(60)]

    async def test() -> None:
        behave = stream_then(event("One"), *more, chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n")
        async with world(behave, config=FAST) as w, Caller(w.port) as caller:
            caller.send(BODY | {"stream": True})
            await caller.head()
            w.engines[0].healthy = False
            await until(lambda: _node(w).state == "lost")
            body = b""
            while piece := await caller.piece():
                body += piece
            assert body.endswith(b"data: [DONE]\n\n")

    run(test)


def test_an_engines_nonsense_is_no_model_list() -> None:
    async def test() -> None:
        async with world(config=FAST, models=()) as w:
            w.engines[0].models = ["", "x" * 300]
            await until(lambda: w.engines[0].probes > 10)
            assert w.gateway.core.models() == []
            assert isinstance(w.gateway.core, Core)
            assert (await get(w.port, "/v1/models")).json["data"] == []

    run(test)
