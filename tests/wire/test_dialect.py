"""The table of engines: one entry each, and who is who by what it publishes."""

from __future__ import annotations

import pytest

from penstock.config import Engine
from penstock.facts import Signals
from penstock.wire import prom
from penstock.wire.dialect import DIALECTS, by_health, by_metrics, by_owner, of


def test_every_engine_has_an_entry() -> None:
    assert set(DIALECTS) == set(Engine)


@pytest.mark.parametrize("engine", list(Engine))
def test_each_can_be_asked_whether_it_lives(engine: Engine) -> None:
    spoken = DIALECTS[engine]
    assert (spoken.health or spoken.models).startswith("/")
    assert all(path.startswith("/") for path in spoken.metrics)
    assert {429, 503} <= spoken.busy
    assert spoken.hosted is (spoken.health == "")


def test_no_two_engines_can_be_taken_for_each_other() -> None:
    owners = [owner for spoken in DIALECTS.values() for owner in spoken.owners]
    prefixes = [spoken.prefix for spoken in DIALECTS.values() if spoken.prefix]
    assert len(owners) == len(set(owners))
    assert not any(one != other and one.startswith(other) for one in prefixes for other in prefixes)


def test_an_engine_is_known_by_its_metrics_and_by_who_owns_its_models() -> None:
    assert by_metrics(b"# HELP x\nsglang:num_running_reqs 1\n") is DIALECTS[Engine.SGLANG]
    assert by_metrics(b"trtllm_request_success_total 1\n") is DIALECTS[Engine.TENSORRT_LLM]
    assert by_metrics(b"# about vllm:\nprocess_cpu_seconds_total 5\n") is None
    assert by_owner("llamacpp") is DIALECTS[Engine.LLAMA_CPP]
    assert by_owner("me") is None
    assert by_health(b'{"error":{"message":"Loading model"}}') is DIALECTS[Engine.LLAMA_CPP]
    assert by_health(b"{}") is None


def test_a_page_is_read_as_its_engine_writes_it() -> None:
    page = b"vllm:num_requests_running 1\nsglang:num_running_reqs 2\n"
    assert prom.read(page, DIALECTS[Engine.SGLANG]) == Signals(2)


def test_a_configured_engine_is_believed() -> None:
    assert of(Engine.OLLAMA, "https://api.deepseek.com") is DIALECTS[Engine.OLLAMA]
    assert of(Engine.AUTO, "http://10.0.0.1:8000") is DIALECTS[Engine.AUTO]
