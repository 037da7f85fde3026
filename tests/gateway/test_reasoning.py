"""What models think, through the gateway: engines that each say it their own way, and the official client that sees one form."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from openai import AsyncOpenAI
from tests.gateway.test_hedge import slow_first
from tests.gateway.world import MODEL, SSE_HEAD, STREAM, USAGE, Asked, Behave, World, ask, chunk, never, put_json, run, world

from penstock import config
from penstock.config import Config, Engine, Rung
from penstock.gateway.reasoning import ENTRY_BYTES, Memories
from penstock.wire.toolcalls import Function, ToolCall

R1 = "deepseek-r1"
HELLO = {"role": "user", "content": "Hello"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
DONE = chunk(b"data: [DONE]\n\n")


def _event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return (
        b"data: "
        + msgspec.json.encode({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]})
        + b"\n\n"
    )


def _says(message: dict[str, Any], deltas: list[dict[str, Any]], finish: str = "stop", cut: int = 0) -> Behave:
    """Answers with the message, or with a stream of the deltas, in pieces of `cut` bytes."""

    async def behave(asked: Asked) -> None:
        if not asked.json.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": finish}
            put_json(asked, {"id": "c", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice], "usage": USAGE})
            return
        data = b"".join(map(_event, [{"role": "assistant", "content": ""}, *deltas])) + _event({}, finish)
        size = cut or len(data)
        pieces = [chunk(data[at : at + size]) for at in range(0, len(data), size)]
        asked.writer.write(SSE_HEAD + b"".join(pieces) + DONE + b"0\r\n\r\n")

    return behave


def _content(*texts: str) -> list[dict[str, Any]]:
    return [{"content": text} for text in texts]


IT_IS = _content("It", " is")
TAGS = _says(
    {"content": "<think>\nHm so\n</think>\n\nIt is"}, _content("<think>", "\n", "Hm", " so", "\n", "</think>", "\n\n", "It", " is")
)
ENGINES = {
    "deepseek": _says({"content": "It is", "reasoning_content": "Hm so\n"}, [{"content": None, "reasoning_content": "Hm so\n"}, *IT_IS]),
    "vllm": _says({"content": "It is", "reasoning": "Hm so\n"}, [{"reasoning": "Hm"}, {"reasoning": " so\n"}, *IT_IS]),
    "ollama": _says({"content": "It is", "reasoning": "Hm so\n"}, [{"content": "", "reasoning": "Hm so\n"}, *IT_IS]),
    "no parser": TAGS,
    "tags in pieces": _says({"content": "<think>Hm so\n</think>It is"}, _content("<th", "ink>Hm so", "\n</", "think", ">It is"), cut=7),
    "no opening tag": _says({"content": "Hm so\n</think>\n\nIt is"}, _content("Hm", " so", "\n", "</think>", "\n\n", "It is"), cut=50),
}


def _client(w: World, key: str = "sk-none") -> Any:
    return AsyncOpenAI(base_url=f"http://127.0.0.1:{w.port}/v1", api_key=key, max_retries=0)


async def _both(client: Any, model: str, **more: Any) -> tuple[str, str]:
    stream = await client.chat.completions.create(model=model, messages=[HELLO], stream=True, **more)
    deltas = [part.choices[0].delta async for part in stream if part.choices]
    return "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas), "".join(delta.content or "" for delta in deltas)


@pytest.mark.parametrize("name", ENGINES)
def test_the_official_client_sees_one_form(name: str) -> None:
    async def test() -> None:
        async with world(ENGINES[name], models=(R1,)) as w, _client(w) as client:
            whole = (await client.chat.completions.create(model=R1, messages=[HELLO])).choices[0].message
            assert (whole.reasoning_content, whole.content) == ("Hm so\n", "It is")
            assert await _both(client, R1) == ("Hm so\n", "It is")

    run(test)


def test_a_stream_comes_first_and_is_in_form_all_the_same() -> None:
    async def test() -> None:
        async with world(ENGINES["no opening tag"], models=(R1,)) as w, _client(w) as client:
            assert await _both(client, R1) == ("Hm so\n", "It is")

    run(test)


def test_a_whole_answer_teaches_how_streams_begin() -> None:
    async def test() -> None:
        async with world(ENGINES["no opening tag"]) as w, _client(w) as client:
            assert (await _both(client, MODEL))[0] == ""
            await client.chat.completions.create(model=MODEL, messages=[HELLO])
            assert await _both(client, MODEL) == ("Hm so\n", "It is")

    run(test)


def test_an_answer_mistaken_for_thoughts_is_the_answer() -> None:
    async def test() -> None:
        async with world(_says({"content": None, "reasoning_content": "It is"}, [])) as w:
            message = (await ask(w.port, {"model": MODEL, "messages": [HELLO]})).json["choices"][0]["message"]
            assert message == {"role": "assistant", "content": "It is"}

    run(test)


def test_not_normalised_answers_come_as_they_are() -> None:
    async def test() -> None:
        plain = Config(reasoning=config.Reasoning(normalise=False))
        async with world(TAGS, models=(R1,), config=plain) as w:
            asked = {"model": R1, "messages": [HELLO]}
            assert (await ask(w.port, asked)).json["choices"][0]["message"]["content"].startswith("<think>\n")
            assert (await ask(w.port, asked | {"stream": True})).text == "<think>\nHm so\n</think>\n\nIt is"

    run(test)


def test_a_second_engine_that_wins_is_brought_into_form() -> None:
    async def test() -> None:
        async with slow_first(never, TAGS) as w:
            got = await ask(w.port, STREAM)
            assert len(w.asked) == 2
            assert got.text == "It is"
            assert b'"reasoning_content":"Hm"' in got.body

    run(test)


def test_a_hit_of_the_cache_has_the_same_form() -> None:
    async def test() -> None:
        ladder = (Rung.CACHE, Rung.WAIT, Rung.REJECT)
        async with world(TAGS, config=Config(ladder=ladder)) as w:
            sent = STREAM | {"temperature": 0}
            first, second = await ask(w.port, sent), await ask(w.port, sent)
            assert len(w.asked) == 1
            assert first.body == second.body
            assert second.text == "It is"
            await ask(w.port, sent | {"thinking": {"type": "disabled"}})
            assert len(w.asked) == 2

    run(test)


# --- told whether to think


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        (Engine.VLLM, {"chat_template_kwargs": {"thinking": True, "enable_thinking": True}}),
        (Engine.SGLANG, {"chat_template_kwargs": {"thinking": True, "enable_thinking": True}}),
        (Engine.OLLAMA, {"reasoning_effort": "medium"}),
        (Engine.DEEPSEEK, {"thinking": {"type": "enabled"}}),
        (Engine.OPENAI, {"thinking": {"type": "enabled"}}),
    ],
)
def test_each_engine_is_told_in_its_own_words(engine: Engine, told: dict[str, Any]) -> None:
    async def test() -> None:
        async with world(TAGS, engine=engine) as w:
            sent = {"model": MODEL, "messages": [HELLO], "thinking": {"type": "enabled"}, "temperature": 0.5}
            assert (await ask(w.port, sent)).status == 200
            [asked] = w.asked
            assert asked.json == {"model": MODEL, "messages": [HELLO], "temperature": 0.5} | told

    run(test)


def test_an_alias_says_it_too() -> None:
    async def test() -> None:
        names = {"deepseek-chat": MODEL, "deepseek-reasoner": MODEL}
        async with world(TAGS, engine=Engine.VLLM, config=Config(aliases=names)) as w:
            for name in names:
                await ask(w.port, {"model": name, "messages": [HELLO]})
            assert [asked.json["chat_template_kwargs"]["thinking"] for asked in w.asked] == [False, True]

    run(test)


# --- remembered

THINKS = {"content": "", "reasoning_content": "Look it up."}
CALLS: list[dict[str, Any]] = [
    *(THINKS | {"reasoning_content": part} for part in ("Look ", "it up.")),
    {"tool_calls": [{"index": 0} | CALL]},
]
CALLER = _says(THINKS | {"tool_calls": [CALL]}, CALLS, finish="tool_calls")
AGAIN: list[Any] = [
    HELLO,
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "Rain"},
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "behave",
    [
        CALLER,
        _says(
            {"content": "<think>Look it up.</think>", "tool_calls": [CALL]},
            [*_content("<think>", "Look it", " up.", "</think>"), {"tool_calls": [{"index": 0} | CALL]}],
            "tool_calls",
        ),
    ],
)
def test_thoughts_that_a_client_dropped_are_put_back(stream: bool, behave: Behave) -> None:
    async def test() -> None:
        async with world(behave) as w:
            first = {"model": MODEL, "messages": [HELLO], "tools": TOOLS, "stream": stream}
            await ask(w.port, first)
            await ask(w.port, first | {"messages": AGAIN})
            sent = w.asked[1].json["messages"]
            assert sent[1].pop("reasoning_content") == "Look it up."
            assert sent == AGAIN

    run(test)


def test_what_the_client_kept_or_another_model_thought_is_left_alone() -> None:
    async def test() -> None:
        async with world(CALLER, models=(MODEL, R1)) as w:
            first = {"model": MODEL, "messages": [HELLO], "tools": TOOLS}
            await ask(w.port, first)
            kept = [AGAIN[0], AGAIN[1] | {"reasoning_content": "Mine."}, AGAIN[2]]
            await ask(w.port, first | {"messages": kept})
            await ask(w.port, first | {"messages": AGAIN, "model": R1})
            await ask(w.port, first | {"messages": AGAIN, "thinking": {"type": "disabled"}})
            assert [asked.json["messages"] for asked in w.asked[1:]] == [kept, AGAIN, AGAIN]

    run(test)


def test_another_tenants_thoughts_are_never_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_KEYS", "desk:sk-desk,other:sk-other")

    async def test() -> None:
        async with world(CALLER) as w:
            first = {"model": MODEL, "messages": [HELLO], "tools": TOOLS}
            await ask(w.port, first, headers={"authorization": "Bearer sk-desk"})
            await ask(w.port, first | {"messages": AGAIN}, headers={"authorization": "Bearer sk-other"})
            assert w.asked[1].json["messages"] == AGAIN
            await ask(w.port, first | {"messages": AGAIN}, headers={"authorization": "Bearer sk-desk"})
            assert w.asked[2].json["messages"][1]["reasoning_content"] == "Look it up."

    run(test)


def test_another_call_of_the_same_name_is_another_call() -> None:
    async def test() -> None:
        async with world(CALLER) as w:
            first = {"model": MODEL, "messages": [HELLO], "tools": TOOLS}
            await ask(w.port, first)
            other = CALL | {"function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}
            await ask(w.port, first | {"messages": [HELLO, {"role": "assistant", "tool_calls": [other]}]})
            assert "reasoning_content" not in w.asked[1].json["messages"][1]
            again = CALL | {"function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}
            await ask(w.port, first | {"messages": [HELLO, {"role": "assistant", "tool_calls": [again]}]})
            assert w.asked[2].json["messages"][1]["reasoning_content"] == "Look it up."

    run(test)


def _tool(id: str) -> list[ToolCall]:
    return [ToolCall(0, id, Function("f", "{}"))]


def test_memories_are_bounded_and_the_largest_tenant_gives_way() -> None:
    memories = Memories(10 * (ENTRY_BYTES + 100), 60.0)
    memories.put("small", "m", _tool("a"), "x" * 100, 0.0)
    for number in range(100):
        memories.put("large", "m", _tool(str(number)), "x" * 100, 0.0)
        assert memories.bytes <= memories.most_bytes
    assert memories.get("small", "m", _tool("a"), 1.0) == "x" * 100
    assert memories.get("large", "m", _tool("99"), 1.0) is not None
    assert memories.get("large", "m", _tool("0"), 1.0) is None
    assert memories.bytes == sum(memories.used.values()) == sum(one.bytes for own in memories.tenants.values() for one in own.values())


def test_what_is_old_or_too_large_or_named_too_long_is_forgotten() -> None:
    memories = Memories(10_000, 60.0)
    memories.put("t", "m", _tool("a"), "so", 0.0)
    assert memories.get("t", "m", _tool("a"), 60.0) == "so"
    assert memories.get("t", "m", _tool("a"), 61.0) is None
    memories.put("t", "m", _tool("b"), "so", 100.0)
    assert list(memories.tenants["t"]) == ["b"]
    memories.put("t", "m", _tool("c"), "x" * 20_000, 100.0)
    memories.put("t", "m", _tool("d" * 300), "so", 100.0)
    assert list(memories.tenants["t"]) == ["b"]
    memories.put("t", "m", _tool("e"), "so", 200.0)
    assert list(memories.tenants["t"]) == ["e"]
    assert memories.get("nobody", "m", _tool("e"), 200.0) is None
