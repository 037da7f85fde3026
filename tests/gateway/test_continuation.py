"""Streams whose engine is lost in the middle: what the caller reads is what it would have read."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from tests.gateway.cutting import Cutting, Said, cutting, said
from tests.gateway.world import (
    FINISH,
    MODEL,
    SSE_HEAD,
    STREAM,
    Answer,
    Asked,
    Behave,
    Caller,
    ask,
    chunk,
    die,
    event,
    never,
    refuse,
    run,
    stream_then,
    until,
    world,
)

from penstock.config import Class, Config, Hold, Limits, OnLoss, Rung
from penstock.config import Engine as Kind
from penstock.gateway.emitted import KEPT_BYTES
from penstock.gateway.replay import replay

ASKED: dict[str, Any] = {"model": "deepseek-v3", "messages": [{"role": "user", "content": "Tell me of penstocks."}], "stream": True}
USAGE = {"stream_options": {"include_usage": True}}
THINKS = ASKED | {"model": "deepseek-r1", "messages": [{"role": "user", "content": "Prompt 348"}]}
"""Answered with eight words of thought and eight of text."""
COMPLETION = {"model": "deepseek-v3", "prompt": "Tell me of penstocks", "stream": True, "max_tokens": 9} | USAGE
CHAT = "/v1/chat/completions"


def same(got: Said, whole: Said) -> None:
    assert got.error is None
    assert (got.thoughts, got.text) == (whole.thoughts, whole.text)
    assert (got.reasons, got.dones, got.roles) == (whole.reasons, 1, whole.roles)
    assert len(got.ids) == 1
    if whole.usage is not None:
        assert got.usage is not None
        cached = "prompt_tokens_details"
        assert {**got.usage, cached: 0} == {**whole.usage, cached: 0}


async def lengths(w: Cutting, body: dict[str, Any], path: str = CHAT) -> tuple[Said, int]:
    """The undisturbed answer, and the bytes that its engine sent."""
    w.cut()
    whole = said(await ask(w.port, body, path))
    [sent] = [sent for wire in w.wires for sent in wire.sent]
    return whole, sent


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, ASKED | USAGE | {"max_tokens": 6}),
        (CHAT, ASKED | {"max_tokens": 300}),
        (CHAT, THINKS | USAGE | {"max_tokens": 6}),
        (CHAT, THINKS | USAGE),
        (CHAT, THINKS | {"max_tokens": 12}),
        ("/v1/completions", COMPLETION),
        ("/v1/completions", COMPLETION | {"max_tokens": None, "prompt": ["One prompt the"]}),
    ],
)
def test_a_stream_cut_after_any_byte_goes_on_without_a_seam(path: str, body: dict[str, Any]) -> None:
    async def test() -> None:
        async with cutting() as w:
            whole, size = await lengths(w, body, path)
            step = 1 if size < 3_000 else 37
            for at in range(1, size + 1, step):
                w.cut(at)
                same(said(await ask(w.port, body, path)), whole)
            await until(w.rested)
            assert w.gateway.driver.room.left == KEPT_BYTES

    run(test)


@pytest.mark.parametrize("model", ["deepseek-v3", "deepseek-r1"])
def test_a_stream_cut_again_and_again_goes_on(model: str) -> None:
    async def test() -> None:
        rng = random.Random(7)
        async with cutting(nodes=3) as w:
            body = ASKED | USAGE | {"model": model, "max_tokens": 400, "ignore_eos": True, "min_tokens": 5}
            whole, size = await lengths(w, body)
            for _ in range(10):
                w.cut(rng.randrange(400, size // 2), rng.randrange(300, size // 2), rng.randrange(300, size // 2))
                same(said(await ask(w.port, body)), whole)
                assert sum(len(wire.asked) for wire in w.wires) >= 3

    run(test)


# --- engines that do what they are told


def turns(*behaves: Behave) -> Behave:
    """Calls are treated one after the other, whatever node they come to; the last way is for all that follow."""
    left = list(behaves)

    async def behave(asked: Asked) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(asked)

    return behave


def begins(*texts: str, then: Behave = die) -> Behave:
    return stream_then(event(), *map(event, texts), then=then)


def ends(*texts: str, finish: str = "stop") -> Behave:
    """Streams with another id."""

    async def behave(asked: Asked) -> None:
        mine: dict[str, Any] = {"id": "c-2", "created": 2, "model": "other", "system_fingerprint": "x"}
        asked.writer.write(SSE_HEAD + event(**mine) + b"".join(event(text, **mine) for text in texts))
        asked.writer.write(event(choices=[{"index": 0, "delta": {}, "finish_reason": finish}], **mine))
        usage = {"prompt_tokens": 12, "completion_tokens": len(texts) + 1, "total_tokens": len(texts) + 13}
        asked.writer.write(event(usage=usage, **mine) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    return behave


def fleet(*behaves: Behave, kind: Kind = Kind.VLLM, nodes: int = 2, **more: Any) -> Any:
    return world(*[turns(*behaves)] * nodes, engine=kind, **more)


def ended_in_error(got: Answer, code: str = "failed") -> None:
    assert (got.status, got.whole) == (200, True)
    assert b"[DONE]" not in got.body
    error = msgspec.json.decode(got.events[-1])["error"]
    assert error["code"] == code
    assert error["retry_after_ms"] > 0


def test_the_other_engine_is_told_to_go_on_with_the_message() -> None:
    async def test() -> None:
        async with fleet(begins("One", " two"), ends(" three", " four")) as w:
            body = STREAM | {"max_tokens": 8, "min_tokens": 3, "seed": 5, "stop": ["\n\n"], **USAGE}
            got = said(await ask(w.port, body))
            assert (got.text, got.reasons, got.dones, got.roles) == ("One two three four", ["stop"], 1, 1)
            assert got.ids == {("c-1", 1, MODEL, "chat.completion.chunk")}
            assert got.usage == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
            first, second = sorted((asked.json for asked in w.asked), key=lambda one: len(one["messages"]))
            assert second["messages"] == [*first["messages"], {"role": "assistant", "content": "One two"}]
            assert (second["continue_final_message"], second["add_generation_prompt"]) == (True, False)
            assert (second["max_tokens"], second["min_tokens"], second["seed"], second["stop"]) == (6, 1, 5, ["\n\n"])
            assert second["stream_options"] == {"include_usage": True}

    run(test)


def test_llama_cpp_goes_on_unasked() -> None:
    async def test() -> None:
        async with fleet(begins("One"), ends(" two"), kind=Kind.LLAMA_CPP) as w:
            assert said(await ask(w.port, STREAM)).text == "One two"
            assert not any("continue_final_message" in asked.json for asked in w.asked)

    run(test)


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"guided_json": {"type": "object"}},
        {"n": 2},
        {"logprobs": True},
        {"an_option_of_next_year": 1},
        {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    ],
)
def test_what_cannot_be_exact_ends_with_a_typed_error(more: dict[str, Any]) -> None:
    async def test() -> None:
        async with fleet(begins("One"), ends(" two")) as w:
            ended_in_error(await ask(w.port, STREAM | more))
            assert len(w.asked) == 1

    run(test)


@pytest.mark.parametrize(
    "delta",
    [
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}]},
        {"reasoning_content": "Hm"},
        {"reasoning": "Hm"},
        {"refusal": "No"},
        {"content": [{"type": "text", "text": "x"}]},
    ],
)
def test_what_is_more_than_text_ends_with_a_typed_error(delta: dict[str, Any]) -> None:
    async def test() -> None:
        shown = event(choices=[{"index": 0, "delta": delta, "finish_reason": None}])
        async with fleet(stream_then(event(), shown), ends(" two")) as w:
            ended_in_error(await ask(w.port, STREAM))
            assert len(w.asked) == 1

    run(test)


@pytest.mark.parametrize("kind", [Kind.AUTO, Kind.OPENAI, Kind.DEEPSEEK, Kind.OLLAMA, Kind.TENSORRT_LLM])
def test_engines_that_are_not_known_to_go_on_are_not_asked_to(kind: Kind) -> None:
    async def test() -> None:
        async with fleet(begins("One"), ends(" two"), kind=kind) as w:
            ended_in_error(await ask(w.port, STREAM))
            assert len(w.asked) == 1

    run(test)


def test_without_another_node_it_ends_with_a_typed_error() -> None:
    async def test() -> None:
        async with fleet(begins("One"), ends(" two"), nodes=1) as w:
            ended_in_error(await ask(w.port, STREAM))
            # Nothing had been kept for it.
            assert w.gateway.driver.room.left == KEPT_BYTES

    run(test)


def test_a_class_may_have_its_streams_end() -> None:
    async def test() -> None:
        config = Config(classes=(Class(name="x", on_loss=OnLoss.FAIL),))
        async with fleet(begins("One"), ends(" two"), config=config) as w:
            ended_in_error(await ask(w.port, STREAM))
            assert len(w.asked) == 1

    run(test)


def test_an_engine_that_refuses_is_no_failure_and_another_is_asked() -> None:
    async def test() -> None:
        async with fleet(begins("One"), refuse(400), ends(" two"), nodes=3) as w:
            assert said(await ask(w.port, STREAM)).text == "One two"
            assert sorted(node.breaker.count for node in w.gateway.core.nodes) == [0, 0, 1]
        async with fleet(begins("One"), refuse(400)) as w:
            ended_in_error(await ask(w.port, STREAM))

    run(test)


def test_a_busy_engine_is_asked_again() -> None:
    async def test() -> None:
        async with fleet(begins("One"), refuse(503), refuse(429), ends(" two")) as w:
            assert said(await ask(w.port, STREAM)).text == "One two"

    run(test)


def test_thoughts_after_the_answer_has_begun_do_not_fit() -> None:
    async def test() -> None:
        thought = event(choices=[{"index": 0, "delta": {"reasoning_content": "Hm"}, "finish_reason": None}])
        async with fleet(begins("One"), stream_then(thought)) as w:
            ended_in_error(await ask(w.port, STREAM))

    run(test)


@pytest.mark.parametrize(("texts", "whole"), [(["\n", "\n two"], True), (["\n\n two"], True), ([" two"], False), (["\n two"], False)])
def test_white_space_that_a_template_may_drop_is_asked_for_again_and_not_sent_twice(texts: list[str], whole: bool) -> None:
    async def test() -> None:
        async with fleet(begins("One", "\n\n"), ends(*texts)) as w:
            got = await ask(w.port, STREAM)
            assert max((asked.json for asked in w.asked), key=lambda one: len(one["messages"]))["messages"][-1]["content"] == "One"
            if whole:
                assert said(got).text == "One\n\n two"
            else:
                ended_in_error(got)

    run(test)


def test_what_may_be_the_beginning_of_a_stop_sequence_is_asked_for_again() -> None:
    async def test() -> None:
        async with fleet(begins("One", " EN"), ends(" EN", "OUGH")) as w:
            got = said(await ask(w.port, STREAM | {"stop": [" END", "x"]}))
            assert got.text == "One ENOUGH"
            assert [asked.json["messages"][-1]["content"] for asked in w.asked if len(asked.json["messages"]) > 1] == ["One"]
        # It was one: the engine says no more.
        async with fleet(begins("One", " EN"), ends()) as w:
            got = said(await ask(w.port, STREAM | {"stop": " END"}))
            assert (got.text, got.reasons) == ("One EN", ["stop"])

    run(test)


def test_an_answer_of_which_only_the_end_is_missing_is_ended() -> None:
    async def test() -> None:
        for pieces in ([event(choices=FINISH)], [event(choices=FINISH), event(usage={"prompt_tokens": 9, "completion_tokens": 1})]):
            async with fleet(stream_then(event(), event("One"), *pieces)) as w:
                got = said(await ask(w.port, STREAM))
                assert (got.text, got.reasons, got.dones, got.error) == ("One", ["stop"], 1, None)
                assert len(w.asked) == 1
        # Whoever asked for the usage gets that too.
        async with fleet(stream_then(event(), event("One"), event(choices=FINISH)), ends(" x", finish="length")) as w:
            got = said(await ask(w.port, STREAM | USAGE))
            assert (got.text, got.reasons, got.dones) == ("One", ["stop"], 1)
            assert got.usage == {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13}

    run(test)


def test_a_limit_that_is_reached_is_kept() -> None:
    async def test() -> None:
        async with fleet(begins("One", " two"), ends(" three", finish="stop")) as w:
            got = said(await ask(w.port, STREAM | {"max_tokens": 2}))
            assert (got.text, got.reasons) == ("One two", ["length"])

    run(test)


def test_an_engine_that_falls_silent_is_left_for_another() -> None:
    async def test() -> None:
        config = Config(limits=Limits(idle_s=0.3))
        async with fleet(begins("One", then=never), ends(" two"), config=config) as w:
            assert said(await ask(w.port, STREAM)).text == "One two"
            await until(lambda: not any(engine.open for engine in w.engines))

    run(test)


def test_it_waits_for_a_slot_with_signs_of_life_and_before_others() -> None:
    async def test() -> None:
        config = Config(hold=Hold(quiet_s=0.05, interval_s=0.05))
        free = asyncio.Event()

        async def stays(asked: Asked) -> None:
            await free.wait()
            await ends("x")(asked)

        async with (
            fleet(stays, begins("One"), ends(" two"), config=config, max_running=1) as w,
            Caller(w.port) as first,
            Caller(w.port) as second,
        ):
            first.send(STREAM)
            await until(lambda: len(w.asked) == 1)
            lost = next(node for node in w.gateway.core.nodes if not node.running)
            second.send(STREAM)
            await until(lambda: any(call.lost for call in w.gateway.driver.calls.values()))
            # The node that failed it may be given others, but not this one.
            assert lost.running == 0
            await second.head()
            seen = b""
            while b": queued position=1" not in seen:
                seen += await second.piece()
            free.set()
            while piece := await second.piece():
                seen += piece
            assert seen.count(b"[DONE]") == 1
            assert seen.index(b"One") < seen.index(b": queued") < seen.index(b" two")

    run(test)


def test_a_caller_who_leaves_while_it_waits_is_forgotten() -> None:
    async def test() -> None:
        async with fleet(never, begins("One"), ends(" two"), max_running=1) as w, Caller(w.port) as first, Caller(w.port) as second:
            first.send(STREAM)
            await until(lambda: len(w.asked) == 1)
            second.send(STREAM)
            await until(lambda: any(call.lost for call in w.gateway.driver.calls.values()))
            second.leave()
            await until(lambda: len(w.gateway.core.flights) == 1 and not w.gateway.core.waiting)
            first.leave()
            await until(lambda: not w.gateway.core.flights)
            assert w.gateway.driver.room.left == KEPT_BYTES

    run(test)


def test_a_slow_caller_holds_the_second_engine_back_too() -> None:
    words = [f" {index:0>20000}" for index in range(1_500)]

    async def long(asked: Asked) -> None:
        asked.writer.write(SSE_HEAD + event())
        for word in words[1:]:
            asked.writer.write(event(word))
            await asked.writer.drain()
        asked.writer.write(event(choices=FINISH) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    async def test() -> None:
        config = Config(limits=Limits(write_s=20.0))
        async with fleet(begins(words[0]), long, config=config) as w, Caller(w.port) as caller:
            caller.send(STREAM | {"max_tokens": None})
            status, _ = await caller.head()
            await until(lambda: len(w.asked) == 2)
            [call] = w.gateway.driver.calls.values()
            await until(lambda: call.exchange.paused)
            # Nothing piles up: what is too long to be gone on with again is not kept.
            assert call.emitted is not None
            assert call.emitted.written() is None
            pieces = []
            while piece := await caller.piece():
                pieces.append(piece)
            assert said(Answer(status, {}, b"".join(pieces), True)).text == "".join(words)

    run(test)


def test_a_text_that_is_too_long_to_keep_ends_with_a_typed_error() -> None:
    async def test() -> None:
        async with fleet(begins(*["x" * 200_000] * 8), ends(" two")) as w:
            ended_in_error(await ask(w.port, STREAM))

    run(test)


def test_a_large_request_goes_on_too() -> None:
    async def test() -> None:
        body = STREAM | {"messages": [{"role": "user", "content": "x" * 300_000}]}
        async with fleet(begins("One"), ends(" two")) as w:
            assert said(await ask(w.port, body)).text == "One two"

    run(test)


# --- what else looks at a stream


def test_the_official_client_notices_nothing() -> None:
    async def test() -> None:
        async with cutting() as w:
            api = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{w.port}/v1", api_key="none", max_retries=0)
            whole, size = await lengths(w, THINKS | USAGE)
            for at in range(700, size, 499):
                w.cut(at)
                stream = await api.chat.completions.create(**THINKS, stream_options={"include_usage": True})
                chunks = [part async for part in stream]
                assert "".join(part.choices[0].delta.content or "" for part in chunks if part.choices) == whole.text
                assert len({part.id for part in chunks}) == 1
                assert chunks[-1].usage is not None and whole.usage is not None
                assert chunks[-1].usage.total_tokens == whole.usage["total_tokens"]
            await api.close()

    run(test)


def test_an_answer_that_was_continued_is_kept_whole() -> None:
    async def test() -> None:
        ladder = (Rung.CACHE, Rung.WAIT, Rung.REJECT)
        async with cutting(config=Config(probe_s=0.05, ladder=ladder)) as w:
            body = ASKED | USAGE | {"max_tokens": 9, "temperature": 0}
            w.cut(1_200)
            first = await ask(w.port, body)
            again = await ask(w.port, body)
            assert again.headers["x-penstock-served-by"] == "cache"
            assert len(w.asked) == 2
            same(said(again), said(first))

    run(test)


def test_a_repeat_sees_the_joined_stream() -> None:
    async def test() -> None:
        async with cutting() as w:
            body = ASKED | USAGE | {"max_tokens": 9}
            w.cut(1_200)
            first = await ask(w.port, body, headers={"idempotency-key": "a"})
            again = await ask(w.port, body, headers={"idempotency-key": "a"})
            assert again.headers["idempotent-replayed"] == "true"
            assert again.body == first.body
            assert len(w.asked) == 2

    run(test)


def test_a_journal_of_it_replays(tmp_path: Path) -> None:
    async def test() -> None:
        async with cutting(journal=tmp_path) as w:
            whole, size = await lengths(w, ASKED | {"max_tokens": 30})
            for at in range(500, size, 997):
                w.cut(at)
                same(said(await ask(w.port, ASKED | {"max_tokens": 30})), whole)
            assert sum(book.continued for book in w.gateway.driver.ledger.classes.values()) > 3

    run(test)
    result = replay(tmp_path)
    assert result.difference is None
    assert result.events > 20
