"""A second try on a second engine, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.world import (
    BODY,
    STREAM,
    WORDS,
    Asked,
    Behave,
    Caller,
    World,
    answer,
    ask,
    die,
    event,
    never,
    refuse,
    run,
    stream_then,
    until,
    world,
)

from penstock.config import Class, Config
from penstock.gateway.replay import replay

RULES = (Class(name="soon", ttft_ms=900),)
WHOLE = (Class(name="soon", total_ms=3_000),)
TOKEN_S = 0.001


@asynccontextmanager
async def slow_first(slow: Behave, other: Behave = answer, *, journal: Path | None = None, rules: Any = RULES) -> AsyncIterator[World]:
    """Whoever is asked first behaves as `slow`, everybody after that as `other`; there is a share to spend."""
    asked_before = False

    async def engine(asked: Asked) -> None:
        nonlocal asked_before
        first, asked_before = not asked_before, True
        await (slow if first else other)(asked)

    async with world(engine, engine, config=Config(classes=rules), journal=journal) as w:
        w.gateway.core.second.hedges.spare_tokens = 10_000.0
        for node in w.gateway.core.nodes:
            node.steps.itl_s = TOKEN_S
        yield w


async def quiet(w: World) -> None:
    """Both engines are let go of, and the books are empty."""
    await until(lambda: not any(engine.open for engine in w.engines) and not w.gateway.driver.calls)
    assert all(node.running == 0 and not node.memory.held for node in w.gateway.core.nodes)


@pytest.mark.parametrize(("body", "rules"), [(STREAM, RULES), (BODY, WHOLE)])
def test_a_silent_engine_is_overtaken_by_another(body: dict[str, Any], rules: Any) -> None:
    async def test() -> None:
        async with slow_first(never, rules=rules) as w:
            got = await ask(w.port, body)
            assert got.status == 200 and b"One" in got.body
            assert len(w.asked) == 2 and w.asked[0].body == w.asked[1].body
            served = next(engine for engine in w.engines if engine.name == got.headers["x-penstock-node"])
            assert served.asked == [w.asked[1]] or not served.open
            await quiet(w)
            assert w.gateway.ledger.classes["soon"].hedges == 1

    run(test)


def test_a_stream_that_shows_only_its_role_is_overtaken_too() -> None:
    async def test() -> None:
        async with slow_first(stream_then(event(), then=never)) as w:
            got = await ask(w.port, STREAM)
            assert got.text == "".join(WORDS) and got.body.count(b'"role"') == 1
            await quiet(w)

    run(test)


@pytest.mark.parametrize("body", [STREAM, BODY])
def test_the_first_engine_may_still_win(body: dict[str, Any]) -> None:
    hedged = asyncio.Event()

    async def late(asked: Asked) -> None:
        await hedged.wait()
        await answer(asked)

    async def second(asked: Asked) -> None:
        hedged.set()
        await never(asked)

    async def test() -> None:
        rules = RULES if body is STREAM else WHOLE
        async with slow_first(late, second, rules=rules) as w:
            got = await ask(w.port, body)
            assert got.status == 200 and b"One" in got.body
            await quiet(w)

    run(test)


@pytest.mark.parametrize("bad", [die, refuse(500), refuse(503), stream_then(event(), then=die)])
def test_a_second_try_that_fails_leaves_the_first(bad: Behave) -> None:
    failed = asyncio.Event()

    async def late(asked: Asked) -> None:
        await failed.wait()
        await answer(asked)

    async def second(asked: Asked) -> None:
        await bad(asked)
        failed.set()

    async def test() -> None:
        async with slow_first(late, second) as w:
            got = await ask(w.port, STREAM)
            assert (got.status, got.text) == (200, "".join(WORDS))
            await quiet(w)

    run(test)


@pytest.mark.parametrize("bad", [die, refuse(500)])
@pytest.mark.parametrize("body", [STREAM, BODY])
def test_a_first_try_that_fails_leaves_the_second(bad: Behave, body: dict[str, Any]) -> None:
    hedged, failed = asyncio.Event(), asyncio.Event()

    async def first(asked: Asked) -> None:
        await hedged.wait()
        await bad(asked)
        failed.set()

    async def second(asked: Asked) -> None:
        hedged.set()
        await failed.wait()
        await answer(asked)

    async def test() -> None:
        rules = RULES if body is STREAM else WHOLE
        async with slow_first(first, second, rules=rules) as w:
            got = await ask(w.port, body)
            assert got.status == 200 and b"One" in got.body
            await quiet(w)

    run(test)


def test_both_failing_is_told() -> None:
    async def second(asked: Asked) -> None:
        await asyncio.sleep(0.01)
        await die(asked)

    async def first(asked: Asked) -> None:
        await asyncio.sleep(1.0)
        await die(asked)

    async def test() -> None:
        async with slow_first(first, second) as w:
            got = await ask(w.port, STREAM)
            assert (got.status, got.error["code"]) == (503, "failed")
            await quiet(w)

    run(test)


def test_a_caller_who_leaves_frees_both_engines() -> None:
    async def test() -> None:
        async with slow_first(never, never) as w, Caller(w.port) as caller:
            caller.send(STREAM)
            await until(lambda: sum(engine.open for engine in w.engines) == 2)
            caller.leave()
            await quiet(w)

    run(test)


def test_a_journal_with_a_second_try_replays(tmp_path: Path) -> None:
    silent = False

    async def engine(asked: Asked) -> None:
        nonlocal silent
        if silent:
            silent = False
            await never(asked)
        await answer(asked)

    async def test() -> None:
        nonlocal silent
        async with world(engine, engine, config=Config(classes=RULES), journal=tmp_path) as w:
            for _ in range(60):
                # A share is saved up by what is served.
                assert (await ask(w.port, BODY)).status == 200
            silent = True
            assert (await ask(w.port, STREAM)).text == "".join(WORDS)
            assert w.gateway.ledger.classes["soon"].hedges == 1
            await quiet(w)

    run(test)
    assert replay(tmp_path).difference is None
