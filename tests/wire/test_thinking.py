"""Whether a model is to think: how callers say it, and how engines are told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from penstock.config import Engine, Limits
from penstock.wire.fields import Chat
from penstock.wire.openai import Call, read
from penstock.wire.thinking import WAYS, asked, spoken

LOCAL = [Engine.VLLM, Engine.SGLANG, Engine.TENSORRT_LLM, Engine.LLAMA_CPP]
ON, OFF = {"type": "enabled"}, {"type": "disabled"}
BOTH = {"thinking": True, "enable_thinking": True}
NEITHER = {"thinking": False, "enable_thinking": False}


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}], "temperature": 0.70, **fields}).encode()


def call(model: str = "m", **fields: Any) -> Call:
    return read("chat", body(**fields | {"model": model}), Limits(), 7, {"deepseek-chat": "m", "deepseek-reasoner": "m", "other": "m"})


def told(engine: Engine, thinks: bool, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(spoken(body(**fields), engine, thinks))
    assert (found.pop("model"), found.pop("temperature"), len(found.pop("messages"))) == ("m", 0.7, 1)
    return found


@pytest.mark.parametrize(
    ("fields", "thinks"),
    [
        ({}, None),
        ({"thinking": ON}, True),
        ({"thinking": OFF}, False),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, True),
        ({"enable_thinking": True}, True),
        ({"enable_thinking": False}, False),
        ({"chat_template_kwargs": {"thinking": True}}, True),
        ({"chat_template_kwargs": {"enable_thinking": False, "other": 1}}, False),
        ({"chat_template_kwargs": {"other": 1}}, None),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, True),
        ({"reasoning_effort": "max"}, True),
        ({"thinking": OFF, "reasoning_effort": "high"}, False),
        ({"thinking": ON, "chat_template_kwargs": {"thinking": False}}, True),
        ({"thinking": {"type": "auto"}}, None),
        ({"thinking": True}, None),
        ({"thinking": None, "enable_thinking": None, "chat_template_kwargs": None, "reasoning_effort": None}, None),
        ({"thinking": [1], "enable_thinking": "x", "chat_template_kwargs": 5, "reasoning_effort": {"a": 1}}, None),
    ],
)
def test_what_a_caller_says(fields: dict[str, Any], thinks: bool | None) -> None:
    assert call(**fields).thinks is thinks


def test_deepseeks_names_say_it_where_they_are_aliases() -> None:
    assert [call(name).thinks for name in ("deepseek-chat", "deepseek-reasoner", "other")] == [False, True, None]
    assert call("deepseek-chat", thinking=ON).thinks is True
    assert read("chat", body(model="deepseek-reasoner"), Limits(), 7, {}).thinks is None


def test_tools_and_a_prescribed_form_are_noticed() -> None:
    assert call(tools=[{}]).tools
    assert call(response_format={"type": "json_object"}).structured
    assert not call(response_format={"type": "text"}).structured
    assert not call(response_format=None).structured


@pytest.mark.parametrize("engine", LOCAL)
@pytest.mark.parametrize("fields", [{"thinking": ON}, {"enable_thinking": True}])
def test_local_engines_are_told_by_the_templates_arguments(engine: Engine, fields: dict[str, Any]) -> None:
    assert told(engine, True, **fields) == {"chat_template_kwargs": BOTH}


@pytest.mark.parametrize("engine", LOCAL)
def test_other_arguments_of_the_template_stay(engine: Engine) -> None:
    found = told(engine, False, thinking=OFF, chat_template_kwargs={"a": 1})
    assert found == {"chat_template_kwargs": {"a": 1} | NEITHER}


def test_efforts_are_those_that_every_version_takes() -> None:
    assert told(Engine.VLLM, False, reasoning_effort="none") == {"chat_template_kwargs": NEITHER}
    assert told(Engine.VLLM, True, reasoning_effort="high") == {"chat_template_kwargs": BOTH, "reasoning_effort": "high"}
    assert told(Engine.SGLANG, True, reasoning_effort="max") == {"chat_template_kwargs": BOTH, "reasoning_effort": "high"}


def test_ollama_is_told_by_the_effort() -> None:
    assert told(Engine.OLLAMA, True, thinking=ON) == {"reasoning_effort": "medium"}
    assert told(Engine.OLLAMA, False, thinking=OFF) == {"reasoning_effort": "none"}
    assert told(Engine.OLLAMA, True, chat_template_kwargs={"thinking": True}, reasoning_effort="xhigh") == {"reasoning_effort": "high"}


def test_deepseek_is_told_by_its_own_field() -> None:
    assert told(Engine.DEEPSEEK, True, enable_thinking=True) == {"thinking": ON}
    assert told(Engine.DEEPSEEK, False, chat_template_kwargs={"thinking": False}) == {"thinking": OFF}
    assert told(Engine.DEEPSEEK, False, reasoning_effort="none") == {"thinking": OFF}
    assert told(Engine.DEEPSEEK, True, reasoning_effort="max") == {"thinking": ON, "reasoning_effort": "max"}


@pytest.mark.parametrize("engine", list(Engine))
def test_who_speaks_the_engines_language_is_not_translated(engine: Engine) -> None:
    spoken_by: dict[str, list[dict[str, Any]]] = {
        "chat_template_kwargs": [{"chat_template_kwargs": {"thinking": True}}, {"chat_template_kwargs": {"enable_thinking": True}}],
        "reasoning_effort": [{"reasoning_effort": "low"}],
        "thinking": [{"thinking": ON}, {"thinking": ON, "reasoning_effort": "high"}],
        "": [{"thinking": ON}, {"enable_thinking": True}],
    }
    for each in spoken_by[WAYS.get(engine, "")]:
        sent = body(**each)
        assert spoken(sent, engine, True) is sent


def test_what_is_told_says_the_same_again() -> None:
    for engine in WAYS:
        for thinks, fields in ((True, {"thinking": ON}), (False, {"reasoning_effort": "none"}), (True, {"enable_thinking": True})):
            once = spoken(body(**fields), engine, thinks)
            assert read("chat", once, Limits(), 7, {}).thinks is thinks
            assert spoken(once, engine, thinks) is once


def test_what_is_no_text_says_nothing() -> None:
    fields = Chat(model="m", prompt=Raw(b"[]"), thinking=Raw(b'{"\xff":1}'), reasoning_effort=Raw(b'"\xff"'))
    assert asked(fields) is None
