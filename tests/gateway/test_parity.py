"""A live run's journal, replayed, leads to the actions that were taken; and nothing secret is in it, or anywhere."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from tests.gateway.world import BODY, STREAM, Asked, Caller, answer, ask, die, event, get, refuse, run, stream_then, until, world

from penstock.config import Class, Config, Hold, Key
from penstock.gateway.replay import replay
from penstock.knobs import Knobs

CLASSES = (Class(name="short", priority=5, ttft_ms=400.0), Class(name="rest"))


def test_a_live_runs_journal_replays_to_the_same_actions(tmp_path: Path) -> None:
    turn = iter(range(10_000))

    async def mixed(asked: Asked) -> None:
        await asyncio.sleep(0.002)
        number = next(turn)
        if number % 11 == 3:
            await die(asked)
        elif number % 11 == 5:
            await stream_then(event("One"))(asked)
        elif number % 11 == 7:
            await refuse(503)(asked)
        else:
            await answer(asked)

    async def leave(port: int) -> None:
        async with Caller(port) as caller:
            caller.send(STREAM)
            await asyncio.sleep(0.003)

    async def test() -> None:
        config = Config(classes=CLASSES, probe_s=0.05, knobs=Knobs(queue_max=30), hold=Hold(quiet_s=0.05))
        async with world(mixed, mixed, mixed, config=config, journal=tmp_path, max_running=2) as w:
            for _ in range(4):
                calls = [ask(w.port, BODY if index % 2 else STREAM) for index in range(40)]
                await asyncio.gather(*calls, *(leave(w.port) for _ in range(5)))
            await w.engines[2].stop()
            await until(lambda: w.gateway.core.snapshot(0.0).nodes[2].state == "lost")
            await asyncio.gather(*(ask(w.port, STREAM) for _ in range(20)))
            await asyncio.sleep(1.1)

    run(test)
    result = replay(tmp_path)
    assert result.difference is None
    assert result.torn == {}
    assert result.events > 500
    assert result.actions > 200


def test_no_key_and_no_prompt_is_in_any_answer_journal_metric_or_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PENSTOCK_KEYS", "lab:sk-canary-lab")
    monkeypatch.setenv("DESK_KEY", "sk-canary-desk")
    monkeypatch.setenv("ENGINE_KEY", "sk-canary-engine")
    seen: list[object] = []

    async def test() -> None:
        config = Config(keys=(Key(name="desk", env="DESK_KEY"),), probe_s=0.02)
        async with world(answer, die, refuse(500), refuse(403), config=config, journal=tmp_path, key_env="ENGINE_KEY") as w:
            body = BODY | {"messages": [{"role": "user", "content": "canary prompt " * 300}]}
            for key in ("sk-canary-desk", "sk-canary-lab", "sk-canary-wrong"):
                for more in ({}, {"stream": True}, {"model": "gpt-9"}, {"n": -1}, {"api_key": "canary"}):
                    seen.append(await ask(w.port, body | more, headers={"authorization": f"Bearer {key}"}))
            seen.append(await get(w.port, "/v1/models"))
            await w.engines[0].stop()
            await until(lambda: w.gateway.core.snapshot(0.0).nodes[0].state == "lost")
            seen.append(w.gateway.core.snapshot(0.0))
            ledger = w.gateway.ledger
            seen.append([ledger.tenants, ledger.turned_away, ledger.classes, ledger.nodes])

    with caplog.at_level(logging.DEBUG):
        run(test)
    assert "canary" not in repr(seen)
    assert "canary" not in caplog.text
    for path in tmp_path.iterdir():
        assert b"canary" not in path.read_bytes()
    assert replay(tmp_path).difference is None


def test_a_cap_below_the_usual_length_replays(tmp_path: Path) -> None:
    async def test() -> None:
        async with world(journal=tmp_path) as w:
            for most in (8, 8, 2):
                assert (await ask(w.port, BODY | {"max_tokens": most})).status == 200

    run(test)
    assert replay(tmp_path).difference is None
