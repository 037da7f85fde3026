"""Engines of each kind before the gateway: told by configuration or found out, asked in their own way, believed when they say "busy"."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.gateway import speaker
from tests.gateway.speaker import Page, Speaker, models
from tests.gateway.world import SSE_HEAD, STREAM, Asked, Behave, World, answer, ask, chunk, refuse, run, until, world

from penstock.config import Config, Engine
from penstock.facts import NodeSnapshot, Signals
from penstock.wire import continuation, dialect

FAST = Config(probe_s=0.02)
CALL = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}

USAGE = Signals(3, 2, 0.25, ("m",))
NO_USAGE = Signals(3, 2, None, ("m",))
SILENT = Signals(None, None, None, ("m",))

SPOKEN: list[tuple[str, dict[str, Page], Signals]] = [
    ("vllm", speaker.VLLM, USAGE),
    ("vllm", speaker.VLLM_OLD, USAGE),
    ("sglang", speaker.SGLANG, USAGE),
    ("llama.cpp", speaker.LLAMA_CPP, NO_USAGE),
    ("llama.cpp", speaker.LLAMA_CPP_OLD, USAGE),
    ("tensorrt-llm", speaker.TENSORRT_LLM, USAGE),
    ("tensorrt-llm", speaker.TENSORRT_LLM_PROMETHEUS, USAGE),
    ("ollama", speaker.OLLAMA, SILENT),
    ("openai", speaker.OPENAI, SILENT),
    ("deepseek", speaker.DEEPSEEK, SILENT),
]


@asynccontextmanager
async def speaking(
    engine: str, *pages: dict[str, Page], config: Config = FAST, behave: Behave = answer, path: str = "", **node: Any
) -> AsyncIterator[tuple[World, list[Speaker]]]:
    """A gateway before engines with these pages, each configured as `engine`."""

    def make(name: str, given: Behave, tls: Any = None) -> Speaker:
        made = Speaker(name, given, tls)
        made.pages = dict(pages[len(speakers)])
        speakers.append(made)
        return made

    speakers: list[Speaker] = []
    behaviours = [behave] * len(pages)
    async with world(*behaviours, config=config, make=make, path=path, **({"models": (), "engine": engine} | node)) as w:
        yield w, speakers


def node(w: World, index: int = 0) -> NodeSnapshot:
    return w.gateway.core.snapshot(0.0).nodes[index]


def told(signals: Signals, engine: str) -> Signals:
    return Signals(signals.running, signals.waiting, signals.kv_usage, signals.models, engine, continuation.way(engine).forms)


@pytest.mark.parametrize(("engine", "pages", "says"), SPOKEN)
def test_each_engine_is_read_in_its_own_way(engine: str, pages: dict[str, Page], says: Signals) -> None:
    async def test() -> None:
        async with speaking(engine, pages) as (w, _):
            await until(lambda: node(w).reported == told(says, engine))
            assert node(w).state == "up"
            assert (await ask(w.port, CALL)).status == 200

    run(test)


@pytest.mark.parametrize(("engine", "pages", "says"), [row for row in SPOKEN if row[0] != "deepseek"])
def test_what_an_engine_is_can_be_found_out(engine: str, pages: dict[str, Page], says: Signals) -> None:
    async def test() -> None:
        async with speaking("auto", pages) as (w, _):
            await until(lambda: node(w).reported == told(says, engine))

    run(test)


def test_what_it_is_is_found_out_where_its_models_are_configured(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def test() -> None:
        async with speaking("auto", speaker.OLLAMA, models=("mine",)) as (w, _):
            await until(lambda: node(w).reported == Signals(models=("mine",), engine="ollama"))
            assert "node n0 is ollama" in caplog.text

    run(test)


def test_what_comes_back_may_be_another_engine() -> None:
    async def test() -> None:
        async with speaking("auto", speaker.VLLM) as (w, (engine,)):
            await until(lambda: node(w).reported.engine == "vllm")
            await engine.stop()
            await until(lambda: node(w).state == "lost")
            engine.pages = dict(speaker.SGLANG)
            await engine.start()
            await until(lambda: node(w).reported == told(USAGE, "sglang"))

    run(test)


@pytest.mark.parametrize("engine", ["auto", "llama.cpp"])
def test_a_llama_cpp_that_loads_its_model_is_not_ready_and_not_broken(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    loading = dict.fromkeys(speaker.LLAMA_CPP, speaker.LOADING)

    async def test() -> None:
        async with speaking(engine, loading) as (w, (llama,)):
            await until(lambda: node(w).state == "lost")
            assert llama.probes == 1
            assert "n0 is not ready" in caplog.text
            await until(lambda: llama.probes > 3)
            assert node(w).breaker == "closed"
            llama.pages = dict(speaker.LLAMA_CPP)
            await until(lambda: node(w).state == "up")
            assert (await ask(w.port, CALL)).status == 200

    run(test)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm"])
def test_an_engine_that_calls_itself_unwell_is_believed_at_once(engine: str) -> None:
    async def test() -> None:
        async with speaking(engine, speaker.VLLM | {"/health": (503, b"")}) as (w, (sick,)):
            await until(lambda: node(w).state == "lost")
            assert sick.probes == 1

    run(test)


def test_sglang_too_busy_for_its_health_page_lives_while_its_metrics_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.gateway.probe.ANSWER_S", 0.05)
    pages: dict[str, Any] = speaker.SGLANG | {"/health": None}

    async def test() -> None:
        async with speaking("sglang", pages) as (w, (engine,)):
            await until(lambda: engine.count("/metrics") > 4)
            assert node(w).state == "up"
            engine.pages["/metrics"] = None
            await until(lambda: node(w).state == "lost")

    run(test)


def test_ollama_is_asked_for_no_metrics() -> None:
    async def test() -> None:
        async with speaking("ollama", speaker.OLLAMA) as (_, (engine,)):
            await until(lambda: engine.count("/api/version") > 5)
            assert set(engine.paths) == {"/api/version", "/v1/models"}

    run(test)


def test_tensorrt_llms_list_is_read_when_it_says_nothing_new() -> None:
    async def test() -> None:
        async with speaking("tensorrt-llm", speaker.TENSORRT_LLM | {"/metrics": (200, b"[]")}) as (w, (engine,)):
            await until(lambda: engine.count("/metrics") > 3)
            engine.pages = dict(speaker.TENSORRT_LLM)
            await until(lambda: node(w).reported.running == 3)

    run(test)


# --- hosted APIs


@pytest.mark.parametrize(("engine", "pages", "path"), [("openai", speaker.OPENAI, "/v1/models"), ("deepseek", speaker.DEEPSEEK, "/models")])
def test_a_hosted_api_is_asked_seldom_and_for_its_models_alone(engine: str, pages: dict[str, Page], path: str) -> None:
    async def test() -> None:
        async with (
            speaking(engine, pages) as (w, (hosted,)),
            speaking("vllm", speaker.VLLM) as (_, (near,)),
        ):
            await until(lambda: near.probes > 20)
            assert hosted.paths == [path]
            assert node(w).state == "up"

    run(test)


def test_a_hosted_api_that_is_lost_is_looked_for_sooner() -> None:
    async def test() -> None:
        async with speaking("deepseek", speaker.DEEPSEEK) as (w, (hosted,)):
            hosted.pages["/models"] = (500, b"")
            w.gateway._prober.watches[0]._begin()  # type: ignore[union-attr]  # not to wait for half a minute
            await until(lambda: node(w).state == "lost")
            hosted.pages["/models"] = speaker.DEEPSEEK["/models"]
            await until(lambda: node(w).state == "up")

    run(test)


@pytest.mark.parametrize("status", [429, 503])
def test_a_hosted_api_too_busy_for_questions_lives(status: int) -> None:
    async def test() -> None:
        async with speaking("deepseek", {"/models": (status, b"")}, models=("m",)) as (w, (hosted,)):
            await until(lambda: hosted.probes)
            await speaker.quiet(hosted)
            assert node(w).state == "up"
            assert (await ask(w.port, CALL)).status == 200

    run(test)


def test_a_refused_key_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("HOSTED_KEY", "sk-secret")

    async def test() -> None:
        async with speaking("deepseek", {"/models": (401, b"sk-secret")}, models=("m",), key_env="HOSTED_KEY") as (w, (hosted,)):
            for _ in range(3):
                await speaker.quiet(hosted)
                w.gateway._prober.watches[0]._begin()  # type: ignore[union-attr]
            await until(lambda: hosted.probes > 2)
            await speaker.quiet(hosted)
            assert set(hosted.keys) == {"Bearer sk-secret"}
            assert caplog.text.count("does not take the key in its key_env") == 1
            assert "sk-secret" not in caplog.text

    run(test)


@pytest.mark.parametrize(("path", "wanted"), [("", "/chat"), ("/v1", "/chat"), ("/beta", "/beta/chat")])
def test_deepseeks_api_needs_no_v1(path: str, wanted: str) -> None:
    async def test() -> None:
        async with speaking("deepseek", speaker.DEEPSEEK | {"/beta/models": models("deepseek", "m")}, path=path) as (w, _):
            await until(lambda: w.gateway.core.models() == ["m"])
            assert (await ask(w.port, CALL)).status == 200
            assert w.asked[0].line.split()[1] == f"{wanted}/completions"

    run(test)


def test_hosted_apis_are_known_by_their_names() -> None:
    assert dialect.of(Engine.AUTO, "https://api.deepseek.com/v1").engine == "deepseek"
    assert dialect.of(Engine.AUTO, "https://api.openai.com/v1").engine == "openai"
    assert dialect.of(Engine.AUTO, "https://api.deepseek.com.example.org").engine == "auto"
    assert dialect.of(Engine.VLLM, "https://api.openai.com").engine == "vllm"


# --- busy answers

BUSY: list[tuple[str, int, object]] = [
    ("vllm", 429, {"error": {"message": "Too many requests in the queue", "type": "TooManyRequests", "code": 429}}),
    ("vllm", 503, {"error": {"message": "The server is overloaded", "type": "ServiceUnavailableError", "code": 503}}),
    ("sglang", 503, {"object": "error", "message": "The request queue is full.", "code": 503}),
    ("llama.cpp", 503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}),
    ("llama.cpp", 503, {"error": {"code": 503, "message": "no slot available", "type": "unavailable_error"}}),
    ("tensorrt-llm", 503, {"error": {"message": "queue is full"}}),
    ("ollama", 503, {"error": {"message": "server busy, please try again.  maximum pending requests exceeded"}}),
    ("openai", 429, {"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}}),
    ("deepseek", 429, {"error": {"message": "Rate Limit Reached"}}),
    ("deepseek", 503, {"error": {"message": "Server Overloaded"}}),
]
PAGES = {engine: pages for engine, pages, _ in SPOKEN}


def first_busy(status: int, body: object, times: int = 8) -> Behave:
    """Busy `times` times, then well."""
    left = [times]

    async def behave(asked: Asked) -> None:
        left[0] -= 1
        await (refuse(status, body) if left[0] >= 0 else answer)(asked)

    return behave


@pytest.mark.parametrize(("engine", "status", "body"), BUSY)
def test_a_busy_engine_is_well_and_the_next_one_answers(engine: str, status: int, body: object) -> None:
    async def test() -> None:
        behave = first_busy(status, body)
        async with speaking(engine, PAGES[engine], PAGES[engine], behave=behave) as (w, _):
            await until(lambda: w.gateway.core.models() == ["m"] and all(node(w, i).reported.models for i in (0, 1)))
            for _ in range(6):
                await ask(w.port, CALL)
            got = await ask(w.port, CALL)
            assert got.status == 200
            assert [node(w, index).breaker for index in (0, 1)] == ["closed", "closed"]

    run(test)


def test_sglangs_full_queue_inside_a_stream_is_busy_too() -> None:
    full = b'data: {"error": {"object": "error", "message": "The request queue is full.", "type": "SERVICE_UNAVAILABLE", "code": 503}}\n\n'
    left = [1]

    async def behave(asked: Asked) -> None:
        left[0] -= 1
        if left[0] >= 0:
            asked.writer.write(SSE_HEAD + chunk(full) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        else:
            await answer(asked)

    async def test() -> None:
        async with speaking("sglang", speaker.SGLANG, speaker.SGLANG, behave=behave) as (w, _):
            await until(lambda: all(node(w, i).reported.models for i in (0, 1)))
            got = await ask(w.port, STREAM | {"model": "m"})
            assert (got.status, got.text) == (200, "One two three")
            assert len(w.asked) == 2

    run(test)


@pytest.mark.parametrize("status", [401, 402, 403])
def test_trouble_with_our_account_is_not_the_callers(status: int) -> None:
    async def test() -> None:
        body = {"error": {"message": "Insufficient Balance of sk-secret"}}
        async with speaking("deepseek", speaker.DEEPSEEK, behave=refuse(status, body)) as (w, _):
            await until(lambda: w.gateway.core.models() == ["m"])
            got = await ask(w.port, CALL)
            assert got.status in (502, 503)
            assert b"sk-secret" not in got.body

    run(test)
