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
    BODY,
    MODEL,
    STREAM,
    Asked,
    Caller,
    Engine,
    answer,
    ask,
    chunk,
    event,
    refuse,
    run,
    stream_then,
    until,
    world,
)

from penstock.config import Class, Config, Hold, Limits, OnLoss, Rung
from penstock.config import Engine as Kind
from penstock.gateway.replay import replay

ASKED: dict[str, Any] = {"model": "deepseek-v3", "messages": [{"role": "user", "content": "Tell me of penstocks."}], "stream": True}
USAGE = {"stream_options": {"include_usage": True}}
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
        (CHAT, ASKED | USAGE | {"model": "deepseek-r1", "max_tokens": 8, "seed": 3}),
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
            assert w.gateway.driver.room.left == 67_108_864

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
